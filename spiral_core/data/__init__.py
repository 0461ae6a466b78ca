"""Embedded and procedural data sets, in batches that depend on nothing but seed and index."""

from __future__ import annotations

from spiral_core.data.batch import Batch as Batch
from spiral_core.data.datasets import DATASETS as DATASETS
from spiral_core.data.datasets import Dataset as Dataset
from spiral_core.data.datasets import image_shape as image_shape
from spiral_core.data.datasets import open_dataset as open_dataset
from spiral_core.data.digits import DigitsDataset as DigitsDataset
from spiral_core.data.fashion import FashionDataset as FashionDataset
from spiral_core.data.needle import NeedleDataset as NeedleDataset
from spiral_core.data.sequence import MotifDataset as MotifDataset
from spiral_core.data.steering import DataKnob as DataKnob
from spiral_core.data.streams import Purpose as Purpose
from spiral_core.data.streams import derived_generator as derived_generator
