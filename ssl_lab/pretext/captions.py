"""Captions of pictures of views."""

from ssl_lab.captions import Caption

CAPTIONS = {
    "views": Caption(
        title="Views",
        explanation="What the method sees of each sample: random views that should mean the same.",
        order=16,
    ),
    "local_views": Caption(title="Local views", explanation="The smaller views of the same images."),
}
