"""Commands of ``swirl`` besides fit, validate, test and predict: one module each, with ``main(argv) -> int``."""

COMMANDS = {  # command: (module with main(argv), one-line help)
    "record": ("swirl_lightning.commands.record", "record transitions from a real simulator"),
    "init": ("swirl_lightning.commands.init", "make a small untrained model and tokenizer for recorded transitions"),
    "codec": ("swirl_lightning.commands.codec", "train an image codec on recorded frames"),
    "extend": ("swirl_lightning.commands.extend", "give a pretrained model ids for the codes of an image codec"),
    "inspect": ("swirl_lightning.commands.inspect", "what the models will see of some data, before anything is trained"),
    "label": ("swirl_lightning.commands.label", "write IDM actions into an unlabelled file"),
    "forecast": ("swirl_lightning.commands.forecast", "write an FWM's next states of a split, for score"),
    "imagine": ("swirl_lightning.commands.imagine", "roll a world out from a state and actions"),
    "turns": ("swirl_lightning.commands.turns", "roll episodes out on the model's own predictions, measured turn by turn"),
    "plan": ("swirl_lightning.commands.plan", "let an agent look ahead in a model: does it reach its goal?"),
    "disc-edit": ("swirl_lightning.commands.disc_edit", "DiscEdit of AURORA-Bench for an FWM"),
    "world-prediction": ("swirl_lightning.commands.world_prediction", "roll WorldPrediction-Bench's plans out, for score"),
    "convert": ("swirl_lightning.commands.convert", "convert a VQGAN checkpoint (taming layout) into an image codec"),
    "export": ("swirl_lightning.commands.export", "write FWM and IDM of a run as Hugging Face folders"),
    "report": ("swirl_lightning.commands.page", "write one HTML page about a run: tables, curves, samples, pictures"),
    "compare": ("swirl_lightning.commands.compare", "put several runs into one table with intervals"),
    "score": ("swirl_lightning.commands.score", "score predictions of any model from a file"),
    "completion": ("swirl_lightning.commands.completion", "print a script that completes swirl in a shell"),
    "study": ("swirl_lightning.commands.study", "run the paper's comparison: methods x seeds, one report"),
}
TRAINER_COMMANDS = {
    "fit": "train: warm-up, then SWIRL phases",
    "validate": "evaluate on the validation split",
    "test": "evaluate on the test split",
    "predict": "sample next states and actions",
}
