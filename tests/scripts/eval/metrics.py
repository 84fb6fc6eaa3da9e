"""The metrics of the accuracy contract, as docs/evaluation.md defines them."""

import numpy as np


def top1(outputs, labels):
    """The share of samples whose largest score is the label's; of equal scores the first counts."""
    return float(np.mean([o.reshape(-1).argmax() == label for o, label in zip(outputs, labels, strict=True)]))


def auc(outputs, labels):
    """The area under the ROC curve of all scores: Mann-Whitney, a tie counting half."""
    scores, labels = np.concatenate([o.reshape(-1) for o in outputs]), labels.reshape(-1)
    values, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    assert len(values) and len(scores) == len(labels)
    ranks = (counts.cumsum() - (counts - 1) / 2)[places]
    positives = int((labels == 1).sum())
    negatives = len(labels) - positives
    return float((ranks[labels == 1].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def r2(outputs, targets):
    """1 - (sum of squared errors) / (sum of squared distances from the targets' mean)."""
    found, targets = np.concatenate([o.reshape(-1) for o in outputs]).astype(np.float64), targets.astype(np.float64)
    return float(1 - ((targets - found) ** 2).sum() / ((targets - targets.mean()) ** 2).sum())


def cer(outputs, texts, alphabet):
    """Edit distances, summed over all lines, by the characters of the references, summed likewise."""
    errors = sum(edits(decoded(o[0], alphabet), str(text)) for o, text in zip(outputs, texts, strict=True))
    return errors / sum(len(str(text)) for text in texts)


def decoded(scores, alphabet):
    """Greedy CTC: the best class of every step, repetitions taken once, then blanks (class 0) dropped."""
    best = scores.argmax(axis=1)
    kept = best[np.append(True, best[1:] != best[:-1])]
    return "".join(str(alphabet[k]) for k in kept if k != 0)


def edits(a, b):
    """Levenshtein's distance in characters."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        corner, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (x != y))
    return row[-1]


def probe(outputs, labels, weight, bias):
    """Top-1 of a linear probe on the outputs."""
    return top1([weight @ o.reshape(-1) + bias for o in outputs], labels)
