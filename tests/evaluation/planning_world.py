"""A house small enough to enumerate, as a task for a planner: from any room to the attic."""

from swirl_lightning.evaluation.planning import Outcome, PlanningTask

WAYS = {
    "cellar": {"up": "hall"},
    "hall": {"down": "cellar", "in": "kitchen", "up": "landing"},
    "kitchen": {"out": "hall", "through": "garden"},
    "garden": {"in": "kitchen", "climb": "balcony"},
    "landing": {"down": "hall", "in": "bedroom"},
    "bedroom": {"out": "landing", "through": "balcony"},
    "balcony": {"in": "bedroom", "climb": "attic"},
    "attic": {"down": "balcony"},
}


class House(PlanningTask):
    def play(self, seed, actions):
        room, passed = list(WAYS)[seed % len(WAYS)], 0
        for action in actions:
            room, passed = WAYS[room][action], passed + 1
        reached = room == "attic" and passed > 0
        return Outcome(f"You are in the {room}.", "a house", reached, reached, float(reached))

    def read(self, answer):
        return answer if answer[:15] == "You are in the " and answer[15:-1] in WAYS else None

    def actions(self, state, context):
        return list(WAYS[state[15:-1]])

    def value(self, state, context):
        return float(state == "You are in the attic.")
