"""Captions of the pictures of encoders and generators."""

from ssl_lab.captions import Caption

CAPTIONS = {
    "interpolations": Caption(
        title="Interpolations",
        explanation="Each row is a walk between two points of the latent space.",
        order=5,
        same_tiles=True,
    ),
    "traversals": Caption(
        title="Latent dimensions",
        explanation="Each row turns one latent dimension through the range that images take.",
        order=6,
        same_tiles=True,
    ),
    "nearest_neighbours": Caption(
        title="Nearest train images",
        explanation="Samples, and below each the train images most similar to it. A sample that equals one was learned by "
        "heart.",
        order=7,
    ),
    "neighbours": Caption(
        title="Nearest by features",
        explanation="Unseen images, and below each the unseen images whose features are most similar.",
        order=9,
    ),
    "feature_map": Caption(
        title="Principal components of the features",
        explanation="Unseen samples along the two directions in which their features differ most, coloured by class.",
        order=10,
    ),
    "attention": Caption(
        title="Attention",
        explanation="What the heads of the last block look at: the brighter, the more.",
        order=11,
    ),
    "projection": Caption(
        title="Map of the features",
        explanation="Unseen samples placed by their features, coloured by class.",
        order=8,
    ),
}
