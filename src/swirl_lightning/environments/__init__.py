"""Worlds: text, web, tools and pictures. One DataModule each, which records what is missing."""

from swirl_lightning.environments.datamodule import WorldDataModule
from swirl_lightning.environments.text.doorkey import DoorKeyDataModule
from swirl_lightning.environments.text.minigrid import MiniGridDataModule
from swirl_lightning.environments.text.scienceworld import ScienceWorldDataModule
from swirl_lightning.environments.text.textworldexpress import TextWorldExpressDataModule
from swirl_lightning.environments.tools.bfcl import BfclDataModule
from swirl_lightning.environments.tools.stabletoolbench import StableToolBenchDataModule
from swirl_lightning.environments.visual.aurora import AuroraDataModule
from swirl_lightning.environments.visual.bytemorph import ByteMorphDataModule
from swirl_lightning.environments.visual.crafter import CrafterDataModule
from swirl_lightning.environments.visual.minigrid_images import MiniGridImageDataModule
from swirl_lightning.environments.visual.pico_banana import PicoBananaDataModule
from swirl_lightning.environments.visual.video import VideoDataModule
from swirl_lightning.environments.web.mind2web import Mind2WebDataModule
from swirl_lightning.environments.web.miniwob import MiniWobDataModule

__all__ = [
    "AuroraDataModule",
    "BfclDataModule",
    "ByteMorphDataModule",
    "CrafterDataModule",
    "DoorKeyDataModule",
    "Mind2WebDataModule",
    "MiniGridDataModule",
    "MiniGridImageDataModule",
    "MiniWobDataModule",
    "PicoBananaDataModule",
    "ScienceWorldDataModule",
    "StableToolBenchDataModule",
    "TextWorldExpressDataModule",
    "VideoDataModule",
    "WorldDataModule",
]
