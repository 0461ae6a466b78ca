"""Layers, losses and models: forward beside backward, channels last, float32 or float64."""

from __future__ import annotations

from spiral_core.nn import convert as convert
from spiral_core.nn import models as models
from spiral_core.nn.activation import GELU as GELU
from spiral_core.nn.activation import ReLU as ReLU
from spiral_core.nn.activation import Tanh as Tanh
from spiral_core.nn.conv import Conv2d as Conv2d
from spiral_core.nn.layer_norm import LayerNorm as LayerNorm
from spiral_core.nn.layer_norm import ZSpaceLayerNorm as ZSpaceLayerNorm
from spiral_core.nn.layout import ImageToSequence as ImageToSequence
from spiral_core.nn.layout import SequenceToImage as SequenceToImage
from spiral_core.nn.linear import Flatten as Flatten
from spiral_core.nn.linear import Linear as Linear
from spiral_core.nn.loss import LOSS_KERNELS as LOSS_KERNELS
from spiral_core.nn.loss import mse_loss as mse_loss
from spiral_core.nn.loss import softmax_cross_entropy as softmax_cross_entropy
from spiral_core.nn.module import Module as Module
from spiral_core.nn.module import Parameter as Parameter
from spiral_core.nn.norm import BatchNorm1d as BatchNorm1d
from spiral_core.nn.norm import BatchNorm2d as BatchNorm2d
from spiral_core.nn.norm import ZSpaceBatchNorm1d as ZSpaceBatchNorm1d
from spiral_core.nn.norm import ZSpaceBatchNorm2d as ZSpaceBatchNorm2d
from spiral_core.nn.observation import ZSpaceBatchNormTelemetry as ZSpaceBatchNormTelemetry
from spiral_core.nn.observation import ZSpaceLayerNormTelemetry as ZSpaceLayerNormTelemetry
from spiral_core.nn.observation import ZSpaceObservation as ZSpaceObservation
from spiral_core.nn.pass_means import PassMeans as PassMeans
from spiral_core.nn.pooling import AvgPool2d as AvgPool2d
from spiral_core.nn.pooling import GlobalAveragePool2d as GlobalAveragePool2d
from spiral_core.nn.pooling import MaxPool2d as MaxPool2d
from spiral_core.nn.recurrent import Lstm as Lstm
from spiral_core.nn.sequential import Sequential as Sequential
from spiral_core.nn.steering import GainAdaptation as GainAdaptation
from spiral_core.nn.steering import ZSpaceNorm as ZSpaceNorm
from spiral_core.nn.workspace import Workspace as Workspace
