"""The floor: compiled loops over arrays, and the pool that runs them. The only package that imports numba."""

from __future__ import annotations

from spiral_core.kernels.accelerate import (
    cache_directory as cache_directory,
)
from spiral_core.kernels.accelerate import (
    choose_by_dtype as choose_by_dtype,
)
from spiral_core.kernels.accelerate import (
    cold_count as cold_count,
)
from spiral_core.kernels.accelerate import (
    compile_plan as compile_plan,
)
from spiral_core.kernels.accelerate import (
    kernel as kernel,
)
from spiral_core.kernels.accelerate import (
    python_function as python_function,
)
from spiral_core.kernels.accelerate import (
    registered as registered,
)
from spiral_core.kernels.accelerate import (
    scalar as scalar,
)
from spiral_core.kernels.accelerate import (
    warm as warm,
)
from spiral_core.kernels.convolution import convolve as convolve
from spiral_core.kernels.convolution import convolve_backward as convolve_backward
from spiral_core.kernels.elementwise import gaussian_gate as gaussian_gate
from spiral_core.kernels.elementwise import gaussian_gate_backward as gaussian_gate_backward
from spiral_core.kernels.elementwise import rectify as rectify
from spiral_core.kernels.elementwise import rectify_backward as rectify_backward
from spiral_core.kernels.elementwise import squash as squash
from spiral_core.kernels.elementwise import squash_backward as squash_backward
from spiral_core.kernels.loss import cross_entropy as cross_entropy
from spiral_core.kernels.matrix import multiply as multiply
from spiral_core.kernels.matrix import multiply_parts as multiply_parts
from spiral_core.kernels.matrix import pack as pack
from spiral_core.kernels.moments import add_chunks as add_chunks
from spiral_core.kernels.moments import follow_statistics as follow_statistics
from spiral_core.kernels.moments import merge_moments as merge_moments
from spiral_core.kernels.moments import span_moments as span_moments
from spiral_core.kernels.moments import unwhiten as unwhiten
from spiral_core.kernels.moments import whiten as whiten
from spiral_core.kernels.narrow import BFLOAT16 as BFLOAT16
from spiral_core.kernels.narrow import FLOAT16 as FLOAT16
from spiral_core.kernels.narrow import narrow as narrow
from spiral_core.kernels.pool import (
    get_num_threads as get_num_threads,
)
from spiral_core.kernels.pool import (
    run as run,
)
from spiral_core.kernels.pool import (
    set_num_threads as set_num_threads,
)
from spiral_core.kernels.pooling import average_pool as average_pool
from spiral_core.kernels.pooling import average_pool_backward as average_pool_backward
from spiral_core.kernels.pooling import max_pool as max_pool
from spiral_core.kernels.pooling import max_pool_backward as max_pool_backward
from spiral_core.kernels.rectified import rectified_norm as rectified_norm
from spiral_core.kernels.rectified import rectified_norm_backward_input as rectified_norm_backward_input
from spiral_core.kernels.rectified import rectified_norm_backward_sums as rectified_norm_backward_sums
from spiral_core.kernels.rectified import rectified_norm_pool as rectified_norm_pool
from spiral_core.kernels.rectified import rectified_norm_pool_backward_input as rectified_norm_pool_backward_input
from spiral_core.kernels.recurrent import lstm_backward as lstm_backward
from spiral_core.kernels.recurrent import lstm_forward as lstm_forward
from spiral_core.kernels.rownorm import row_norm as row_norm
from spiral_core.kernels.rownorm import row_norm_backward as row_norm_backward
from spiral_core.kernels.rownorm import row_statistics as row_statistics
from spiral_core.kernels.rowwise import add_feature_sums as add_feature_sums
from spiral_core.kernels.rowwise import add_parameter_sums as add_parameter_sums
from spiral_core.kernels.rowwise import rowwise_norm as rowwise_norm
from spiral_core.kernels.rowwise import rowwise_norm_backward as rowwise_norm_backward
from spiral_core.kernels.rowwise import rowwise_statistics as rowwise_statistics
from spiral_core.kernels.stripwise import stripwise_norm as stripwise_norm
from spiral_core.kernels.stripwise import stripwise_norm_backward as stripwise_norm_backward
from spiral_core.kernels.stripwise import stripwise_statistics as stripwise_statistics
from spiral_core.kernels.tile import product as product
from spiral_core.kernels.update import adam_update as adam_update
from spiral_core.kernels.update import add_parts as add_parts
from spiral_core.kernels.update import sgd_update as sgd_update
from spiral_core.kernels.update import sum_of_squares as sum_of_squares
from spiral_core.kernels.znorm import (
    channel_moments as channel_moments,
)
from spiral_core.kernels.znorm import (
    fold_lanes as fold_lanes,
)
from spiral_core.kernels.znorm import (
    znorm as znorm,
)
from spiral_core.kernels.znorm import (
    znorm_backward_input as znorm_backward_input,
)
from spiral_core.kernels.znorm import (
    znorm_backward_sums as znorm_backward_sums,
)
