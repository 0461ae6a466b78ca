"""What a network looks at: Grad-CAM, its resizing to the image, and scores that say whether to believe it."""

from __future__ import annotations

from spiral_core.xai.gradcam import GradCam as GradCam
from spiral_core.xai.gradcam import GradCamConfig as GradCamConfig
from spiral_core.xai.localisation import LocalizationScores as LocalizationScores
from spiral_core.xai.localisation import energy_over_area as energy_over_area
from spiral_core.xai.localisation import pointing_game as pointing_game
from spiral_core.xai.localisation import score_localization as score_localization
from spiral_core.xai.probe import CamResult as CamResult
from spiral_core.xai.probe import Explainable as Explainable
from spiral_core.xai.probe import gradcam_probe as gradcam_probe
from spiral_core.xai.resize import resize_bilinear as resize_bilinear
from spiral_core.xai.resize import upsample_positive as upsample_positive
