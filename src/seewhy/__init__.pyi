"""Public names and their types. Made by scripts/make_stub.py; do not edit."""

from seewhy.api import detections as detections
from seewhy.api import explain as explain
from seewhy.comparing import compare as compare
from seewhy.comparison import Comparison as Comparison
from seewhy.counterfactuals.hierarchical_occlusion import HierarchicalOcclusion as HierarchicalOcclusion
from seewhy.detection import Detection as Detection
from seewhy.draw.overlay import saliency_to_image as saliency_to_image
from seewhy.explainers.ablation_cam import AblationCAM as AblationCAM
from seewhy.explainers.activation_map import ActivationMap as ActivationMap
from seewhy.explainers.attention_rollout import AttentionRollout as AttentionRollout
from seewhy.explainers.centre_map import CentreMap as CentreMap
from seewhy.explainers.deconvolution import Deconvolution as Deconvolution
from seewhy.explainers.det_class_probability_map import DetClassProbabilityMap as DetClassProbabilityMap
from seewhy.explainers.eigen_cam import EigenCAM as EigenCAM
from seewhy.explainers.grad_cam import GradCAM as GradCAM
from seewhy.explainers.grad_cam_plus_plus import GradCAMPlusPlus as GradCAMPlusPlus
from seewhy.explainers.gradient import Gradient as Gradient
from seewhy.explainers.guided_backprop import GuidedBackprop as GuidedBackprop
from seewhy.explainers.hierarchical_perturbation import HierarchicalPerturbation as HierarchicalPerturbation
from seewhy.explainers.hires_cam import HiResCAM as HiResCAM
from seewhy.explainers.hsic import HSIC as HSIC
from seewhy.explainers.input_x_gradient import InputXGradient as InputXGradient
from seewhy.explainers.instance_maps import InstanceMaps as InstanceMaps
from seewhy.explainers.integrated_gradients import IntegratedGradients as IntegratedGradients
from seewhy.explainers.kernel_shap import KernelSHAP as KernelSHAP
from seewhy.explainers.layer_cam import LayerCAM as LayerCAM
from seewhy.explainers.le_grad import LeGrad as LeGrad
from seewhy.explainers.lime import LIME as LIME
from seewhy.explainers.occlusion import Occlusion as Occlusion
from seewhy.explainers.random_map import RandomMap as RandomMap
from seewhy.explainers.recipro_cam import ReciproCAM as ReciproCAM
from seewhy.explainers.rise import RISE as RISE
from seewhy.explainers.rise_plus import RISEPlus as RISEPlus
from seewhy.explainers.score_cam import ScoreCAM as ScoreCAM
from seewhy.explainers.smooth_grad import SmoothGrad as SmoothGrad
from seewhy.explainers.tis import TIS as TIS
from seewhy.explainers.vit_recipro_cam import ViTReciproCAM as ViTReciproCAM
from seewhy.explanation import Explanation as Explanation
from seewhy.gates import assert_looks_at as assert_looks_at
from seewhy.images.preprocessing import Preprocessing as Preprocessing
from seewhy.insights.diff import diff as diff
from seewhy.insights.neighbours import neighbours as neighbours
from seewhy.insights.patterns import patterns as patterns
from seewhy.insights.slices import slices as slices
from seewhy.memory import keep_memory as keep_memory
from seewhy.models import heads as heads
from seewhy.models.accelerate import accelerate as accelerate
from seewhy.models.function import FunctionModel as FunctionModel
from seewhy.models.loading import load as load
from seewhy.models.torch.model import TorchModel as TorchModel
from seewhy.models.torch.towers import spoken as spoken
from seewhy.ood.ood_net import OoDNet as OoDNet
from seewhy.runs.runner import ImageClassificationRunner as ImageClassificationRunner
from seewhy.targets import BoxTarget as BoxTarget
from seewhy.targets import ClassTarget as ClassTarget
from seewhy.targets import DRISETarget as DRISETarget
from seewhy.targets import KeypointTarget as KeypointTarget
from seewhy.targets import MaskTarget as MaskTarget
from seewhy.targets import RegionTarget as RegionTarget
from seewhy.targets import SimilarityTarget as SimilarityTarget
from seewhy.targets import TextTarget as TextTarget
from seewhy.types import Outputs as Outputs
from seewhy.types import Sample as Sample
from seewhy.uncertainty.epistemic_uncertainty import EpistemicUncertainty as EpistemicUncertainty
from seewhy.web.notebook import show as show
from seewhy.web.report import report as report

from . import api as api
from . import attribution as attribution
from . import baseline as baseline
from . import boxes as boxes
from . import checks as checks
from . import cli as cli
from . import comparing as comparing
from . import comparison as comparison
from . import counterfactuals as counterfactuals
from . import csv_cells as csv_cells
from . import datasets as datasets
from . import demo as demo
from . import detection as detection
from . import draw as draw
from . import engines as engines
from . import errors as errors
from . import explainers as explainers
from . import explanation as explanation
from . import explanation_file as explanation_file
from . import exports as exports
from . import foreign as foreign
from . import gates as gates
from . import images as images
from . import inputs as inputs
from . import insights as insights
from . import joining as joining
from . import judging as judging
from . import maps as maps
from . import memory as memory
from . import metrics as metrics
from . import models as models
from . import ood as ood
from . import perturbation as perturbation
from . import plain as plain
from . import progress as progress
from . import pytest_plugin as pytest_plugin
from . import regions as regions
from . import registry as registry
from . import runs as runs
from . import specs as specs
from . import statistics as statistics
from . import targets as targets
from . import trust as trust
from . import types as types
from . import uncertainty as uncertainty
from . import web as web
from . import zoo as zoo

__all__ = [
    "HSIC",
    "LIME",
    "RISE",
    "TIS",
    "AblationCAM",
    "ActivationMap",
    "AttentionRollout",
    "BoxTarget",
    "CentreMap",
    "ClassTarget",
    "Comparison",
    "DRISETarget",
    "Deconvolution",
    "DetClassProbabilityMap",
    "Detection",
    "EigenCAM",
    "EpistemicUncertainty",
    "Explanation",
    "FunctionModel",
    "GradCAM",
    "GradCAMPlusPlus",
    "Gradient",
    "GuidedBackprop",
    "HiResCAM",
    "HierarchicalOcclusion",
    "HierarchicalPerturbation",
    "ImageClassificationRunner",
    "InputXGradient",
    "InstanceMaps",
    "IntegratedGradients",
    "KernelSHAP",
    "KeypointTarget",
    "LayerCAM",
    "LeGrad",
    "MaskTarget",
    "Occlusion",
    "OoDNet",
    "Outputs",
    "Preprocessing",
    "RISEPlus",
    "RandomMap",
    "ReciproCAM",
    "RegionTarget",
    "Sample",
    "ScoreCAM",
    "SimilarityTarget",
    "SmoothGrad",
    "TextTarget",
    "TorchModel",
    "ViTReciproCAM",
    "accelerate",
    "assert_looks_at",
    "compare",
    "detections",
    "diff",
    "explain",
    "keep_memory",
    "load",
    "neighbours",
    "patterns",
    "report",
    "saliency_to_image",
    "show",
    "slices",
    "spoken",
]

__version__: str
