"""Build the Dockerfile without a registry, and run what comes out of it without an engine.

`images` builds with buildah on a stand-in for the Python base image, and leaves the images' trees
in the cache; `Container` runs one with crun, the runtime that podman uses.
"""

from .build import BuildFailed, Image, Images, blocks, images, two_builds
from .container import WRITABLE, Container, ContainerError
from .tree import listing, scratch_copy

__all__ = [
    "WRITABLE",
    "BuildFailed",
    "Container",
    "ContainerError",
    "Image",
    "Images",
    "blocks",
    "images",
    "listing",
    "scratch_copy",
    "two_builds",
]
