from arrays import tiny_vq_vae
from ranks.fixed import IMAGES, images

from ssl_lab.encoders.code_gpt import CodeGPT
from ssl_lab.methods.image_gpt import ImageGPT
from ssl_lab.optim import SGD


def make():
    return ImageGPT(CodeGPT(IMAGES, codes=tiny_vq_vae(), embed_dim=16, depth=2, num_heads=2), SGD())


batch = images
