"""ssl_lab: self-supervised pretraining with masked, contrastive and generative objectives.

The package imports nothing heavy at the top; import what you need from its parts::

    from ssl_lab.data.image.digits import Digits
    from ssl_lab.encoders.convnet import ConvNet
    from ssl_lab.methods.simclr import SimCLR
    from ssl_lab.engine.pretrain import pretrain
"""

import sys

from ssl_lab.runs.moved import FormerNames

__version__ = "0.1.0"
sys.meta_path.append(FormerNames())
