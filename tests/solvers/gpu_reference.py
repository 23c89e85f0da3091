"""Reference implementation of the GPU search in NumPy."""

from __future__ import annotations

import numpy as np


def draw(seed, count, bound):
    """MurmurHash3's finaliser of two integers, reduced to [0, bound)."""
    mask = 2**32 - 1
    z = (int(seed) % 2**32 + int(count) * 0x9E3779B9) & mask
    z = ((z ^ (z >> 16)) * 0x85EBCA6B) & mask
    z = ((z ^ (z >> 13)) * 0xC2B2AE35) & mask
    z ^= z >> 16
    return (z >> 1) % bound


class Reference:
    """One program, which the kernel must match bit for bit."""

    def __init__(self, Q, x, f, seed, parameters, slots, groups=None):
        self.Q = Q.copy()
        np.fill_diagonal(self.Q, 0)
        self.x, self.f = x.copy(), f.copy()
        self.release = np.zeros(len(x), int)
        self.best_x, self.best_f = x.copy(), f.copy()
        self.seed, self.parameters, self.slots = seed, parameters, slots
        self.groups = np.zeros(len(x), int) if groups is None else groups
        self.grouped = groups is not None
        self.step = self.stall = self.since = self.kick = 0
        self.energy = self.best = self.slack = 0.0
        self.dirty = False
        self.moves = []
        self.kicks = 0

    def run(self, steps):
        for _ in range(steps):
            if self.since >= self.parameters.patience:
                return
            self.one_step()
        if self.dirty:
            self.save()

    def save(self):
        self.best_x, self.best_f, self.dirty = self.x.copy(), self.f.copy(), False

    def one_step(self):
        self.step += 1
        leave = self.step % 2
        sign = self.f.dtype.type(1 if leave else -1)
        free = self.release <= self.step
        p, q, own, gain = self.choose(leave, sign, free)
        if q is None:
            if p is not None:  # flipped, and flipped back
                self.f = self.f - 2 * sign * self.Q[p]
                self.f = self.f + 2 * sign * self.Q[p]
            if self.dirty:
                self.save()
            better = False
        else:
            change = -(own + gain)
            if self.dirty and change >= 0:
                # The kernel undoes p's flip in the fields, including rounding errors.
                self.best_x, self.dirty = self.x.copy(), False
                flipped = self.f - 2 * sign * self.Q[p]
                self.best_f = flipped + 2 * sign * self.Q[p]
            self.moves.append((p, q))
            self.f = self.f - 2 * sign * self.Q[p]
            self.f = self.f + 2 * sign * self.Q[q]
            self.x[p], self.x[q] = 1 - leave, leave
            for count, v in ((1, p), (2, q)):
                rest = draw(self.seed, 4 * self.step + count, self.parameters.tenure)
                self.release[v] = self.step + self.parameters.tenure + rest
            self.energy += float(change)
            self.slack += float(np.finfo(self.f.dtype).eps) * float(abs(own) + abs(gain))
            better = self.energy < self.best - self.slack
        if better:
            self.best, self.slack, self.dirty = self.energy, 0.0, True
            self.stall = self.since = 0
        else:
            self.stall += 1
            self.since += 1
        self.kick = max(self.kick - 1, 0)
        if self.stall >= self.parameters.stall:
            if self.dirty:
                self.save()
            self.x, self.f = self.best_x.copy(), self.best_f.copy()
            self.release[:] = 0
            self.energy, self.slack = self.best, 0.0
            self.kick = self.parameters.kick + draw(
                self.seed, 4 * self.step + 3, self.parameters.kick
            )
            self.stall = -self.kick
            self.kicks += 1

    def choose(self, leave, sign, free):
        """Choose p and q with their gains; None for one that may not move."""
        first = np.flatnonzero(free & (self.x == leave))
        second = np.flatnonzero(free & (self.x != leave))
        gain_of = sign * self.f
        rival = np.full(len(self.x), np.inf, self.f.dtype)
        for g in np.unique(self.groups[second]):
            members = second[self.groups[second] == g]
            rival[self.groups == g] = gain_of[members].min()
        if self.grouped:
            first = first[rival[first] < np.inf]
        if len(first) == 0:
            return None, None, 0.0, 0.0
        if self.kick > 0:
            start = draw(self.seed, 4 * self.step, self.slots)
            p = min(first, key=lambda v: (v - start) % self.slots)
        elif self.grouped:
            p = first[np.argmax(gain_of[first] - rival[first])]
        else:
            p = first[np.argmax(gain_of[first])]
        second = second[self.groups[second] == self.groups[p]]
        if len(second) == 0:
            return int(p), None, 0.0, 0.0
        flipped = self.f - 2 * sign * self.Q[p]
        reward = -sign * flipped[second]
        best = np.argmax(reward)
        return int(p), int(second[best]), gain_of[p], reward[best]
