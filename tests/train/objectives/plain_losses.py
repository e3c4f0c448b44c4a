"""The losses of the papers in plain Python: numbers, lists and loops, written from the equations alone."""

import math


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def cosine(a, b):
    lengths = math.sqrt(dot(a, a)) * math.sqrt(dot(b, b))
    return dot(a, b) / lengths if lengths else 0.0


def softmax(values):
    exponentials = [math.exp(value) for value in values]
    return [exponential / sum(exponentials) for exponential in exponentials]


def columns(matrix):
    return [list(column) for column in zip(*matrix, strict=True)]


def mean(values):
    return sum(values) / len(values)


def own_pair_cross_entropy(logits):
    return mean([-math.log(softmax(row)[i]) for i, row in enumerate(logits)])


def logits_of(images, texts, scale):
    return [[scale * dot(image, text) for text in texts] for image in images]


def clip(images, texts, scale):
    logits = logits_of(images, texts, scale)
    return (own_pair_cross_entropy(logits) + own_pair_cross_entropy(columns(logits))) / 2


def convirt(images, texts, scale):
    logits = logits_of(images, texts, scale)
    return 0.75 * own_pair_cross_entropy(logits) + 0.25 * own_pair_cross_entropy(columns(logits))


def siglip(images, texts, scale, bias):
    total = 0.0
    for i, image in enumerate(images):
        for j, text in enumerate(texts):
            sign = 1 if i == j else -1
            total += math.log(1 + math.exp(-sign * (scale * dot(image, text) + bias)))
    return total / len(images)


def medclip(images, texts, scale, image_labels, text_labels):
    logits = logits_of(images, texts, scale)
    similarity = [[cosine(a, b) for b in text_labels] for a in image_labels]

    def soft_cross_entropy(logits, similarity):
        losses = []
        for logit_row, similarity_row in zip(logits, similarity, strict=True):
            predicted, target = softmax(logit_row), softmax(similarity_row)
            losses.append(-sum(t * math.log(p) for t, p in zip(target, predicted, strict=True)))
        return mean(losses)

    image_to_text = soft_cross_entropy(logits, similarity)
    return (image_to_text + soft_cross_entropy(columns(logits), columns(similarity))) / 2


def gloria_scores(regions, texts):
    """`regions`: of each image a list of vectors; `texts`: of each text a list of word vectors, no padding."""
    scores = []
    for image in regions:
        row = []
        for words in texts:
            total = 0.0
            for word in words:
                attention = softmax([4 * dot(word, region) for region in image])
                context = [
                    sum(a * region[d] for a, region in zip(attention, image, strict=True)) for d in range(len(word))
                ]
                total += math.exp(5 * cosine(context, word))
            row.append(math.log(total))
        scores.append(row)
    return scores


def gloria(images, texts, scale, regions, words):
    local = [[10 * score for score in row] for row in gloria_scores(regions, words)]
    global_ = logits_of(images, texts, scale)
    return sum(own_pair_cross_entropy(logits) for logits in (global_, columns(global_), local, columns(local)))


def ordinal(scores, thresholds, grades):
    losses = []
    for score, grade in zip(scores, grades, strict=True):
        if grade >= 0:
            at_most = [0.0, *(1 / (1 + math.exp(score - threshold)) for threshold in thresholds), 1.0]
            losses.append(-math.log(at_most[grade + 1] - at_most[grade]))
    return mean(losses) if losses else 0.0


def supervised(logits, labels, exclusive):
    if exclusive:
        return mean([-math.log(softmax(row)[label.index(1)]) for row, label in zip(logits, labels, strict=True)])
    losses = []
    for row, label in zip(logits, labels, strict=True):
        for logit, present in zip(row, label, strict=True):
            probability = 1 / (1 + math.exp(-logit))
            losses.append(-math.log(probability if present else 1 - probability))
    return mean(losses)


def polarity(images, statements, scale, states, prevalence):
    """`statements`: of each finding the wordings that state it, and those that deny it."""
    total, known = 0.0, 0
    for image, of_image in zip(images, states, strict=True):
        for (stated, denied), state, share in zip(statements, of_image, prevalence, strict=True):
            if state < 0 or share in (0, 1):
                continue
            logit = scale * (mean([dot(image, text) for text in stated]) - mean([dot(image, text) for text in denied]))
            weight = min(20.0, 0.5 / (share if state else 1 - share))
            total += weight * math.log(1 + math.exp(-logit if state else logit))
            known += 1
    return total / known if known else 0.0


def instance(images, texts, scale, facts):
    logits = logits_of(images, texts, scale)

    def one_way(logits):
        losses = []
        for row, fact in zip(logits, facts, strict=True):
            equal = [probability for probability, other in zip(softmax(row), facts, strict=True) if other == fact]
            losses.append(mean([-math.log(probability) for probability in equal]))
        return mean(losses)

    return (one_way(logits) + one_way(columns(logits))) / 2


def counterfactual(images, texts, scale, changed, rows, facts):
    losses = []
    for i, image in enumerate(images):
        own = [text for text, row in zip(changed, rows, strict=True) if row == i]
        if own:
            probabilities = softmax([scale * dot(image, text) for text in [*texts, *own]])
            equal = [probabilities[j] for j, fact in enumerate(facts) if fact == facts[i]]
            losses.append(mean([-math.log(probability) for probability in equal]))
    return mean(losses)
