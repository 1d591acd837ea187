"""One sink, judged by what arrived there, in the order in which it arrived: lost, repeated, reordered, or never sent by us.

Order is judged by first arrivals: of one file, none may come after one that follows it in the file. A repeat is the same
event id again; an id that is none of ours would be a repeat under another name.
"""


class Arrivals:
    def __init__(self, expected):
        self.expected = expected     # id -> (file, place); it grows while we judge
        self.seen = set()
        self.highest = {}            # file -> the highest place that has arrived
        self.arrived = self.repeated = self.reordered = 0
        self.alien = []

    def arrive(self, uids):
        for uid in uids:
            self.arrived += 1
            if uid in self.seen:
                self.repeated += 1
                continue
            if uid not in self.expected:
                self.alien.append(uid)
                continue
            self.seen.add(uid)
            file, place = self.expected[uid]
            if place < self.highest.get(file, -1):
                self.reordered += 1
            else:
                self.highest[file] = place

    def lost(self, dead=frozenset()):
        """What neither arrived nor lies in the dead letters."""
        return [uid for uid in self.expected if uid not in self.seen and uid not in dead]

    def figures(self, dead=frozenset()):
        return {'records': len(self.expected), 'delivered': len(self.seen), 'lost': len(self.lost(dead)),
                'repeated': self.repeated, 'reordered': self.reordered, 'dead': len(dead - self.seen), 'alien': len(self.alien)}
