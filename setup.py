"""Metadata and dependencies of the package; the build itself is configured in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

CORE = [
    "torch>=2.6",
    "einops>=0.7",
    # Its locks of folders; from 4.0 on it tells a file system without locks from one that is locked.
    "filelock>=4.0",
    "fire>=0.6",
    "huggingface_hub>=0.25",
    "jinja2>=3.1",
    "numpy>=1.24",
    "opencv-python-headless>=4.8",
    "pillow>=10.1",
    # protobuf, sentencepiece and tokenizers are what transformers needs to read T5's tokenizer.
    "protobuf>=3.20",
    # Of the studies alone, see flux.studies.spec.
    "pydantic>=2.11",
    "safetensors>=0.4.3",
    "sentencepiece>=0.2",
    "tokenizers>=0.20",
    "tqdm>=4.65",
    "transformers>=4.45,<6",
]
EXTRAS = {
    # The page of demo_gr.py.
    "app": ["gradio>=6,<7"],
    # PIE-Bench's metrics, see benchmarks/editing.py. torchvision must fit torch's own build.
    "bench": ["torchmetrics>=1.4", "torchvision>=0.21"],
    "plots": ["matplotlib>=3.7"],
    # Weights in 8 and 4 bits, and GGUF files. Tried with torchao 0.10 to 0.18.
    "quant": ["gguf>=0.10", "torchao>=0.10"],
    "ray": ["ray>=2.10"],
    "similarity": ["scikit-image>=0.22", "scipy>=1.11"],
    # None of these is a part of ours. diffusers is an independent implementation to hold ours against; onnx
    # and onnxruntime run what was exported.
    "test": [
        "diffusers>=0.31",
        "jsonschema>=4.18",
        "onnx>=1.17",
        "onnxruntime>=1.20",
        # What diffusers loads LoRAs with.
        "peft>=0.15",
        # Drives a Chromium that is installed already; see tests/app.
        "playwright>=1.45",
        "pytest>=8",
        "pytest-xdist>=3.5",
        "ruff>=0.6",
        "torchmetrics>=1.4",
    ],
}
# Without torchvision, with which transformers prepares pictures otherwise, and without torchao, which
# transformers imports wherever it is installed: a second or two of each start.
EXTRAS["all"] = sorted(
    {requirement for name, extra in EXTRAS.items() if name != "bench" for requirement in extra}
    - {"torchao>=0.10"}
)


def version() -> str:
    """The version as `src/flux/__init__.py` states it; importing the package would need its dependencies."""
    source = (ROOT / "src" / "flux" / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "(.+)"$', source, flags=re.MULTILINE)[1]


def readme() -> str:
    path = ROOT / "README.md"
    return path.read_text(encoding="utf-8") if path.is_file() else ""


setup(
    name="flux",
    version=version(),
    description="A drop-in replacement of the FLUX package with hooks for layer ablation and image editing",
    long_description=readme(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    package_dir={"": "src"},
    packages=find_packages("src"),
    package_data={
        "flux.app": ["*.css", "*.html", "*.js"],
        "flux.studies.pages": ["templates/*.html"],
        "flux.tiny": ["phrasings.json", "weights/**/*"],
    },
    install_requires=CORE,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["flux = flux.__main__:main"]},
)
