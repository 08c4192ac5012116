"""Captions of the pictures that methods draw."""

from ssl_lab.captions import Caption

CAPTIONS = {
    "reconstructions": Caption(
        title="Reconstructions",
        explanation="Unseen images and what the model makes of them from its features.",
        order=2,
        same_tiles=True,
    ),
    "samples": Caption(title="Samples", explanation="New images drawn from the model.", order=4, same_tiles=True),
    "similarities": Caption(
        title="Similarities",
        explanation="Each row asks which column belongs to it: the brighter, the more similar. Partners lie on the diagonal.",
        order=12,
    ),
    "masked_sentences": Caption(
        title="Hidden words",
        explanation="Some words of unseen sentences were hidden; the model guessed them.",
        order=13,
    ),
    "next_words": Caption(
        title="Next words",
        explanation="The model guessed each word of unseen sentences from those before it.",
        order=14,
    ),
    "denoised_sentences": Caption(
        title="Cut-out words",
        explanation="Spans of unseen sentences were cut out; the model wrote them word by word.",
        order=15,
    ),
}
