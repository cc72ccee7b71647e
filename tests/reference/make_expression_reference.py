"""Writes what TensorFlow makes of the expressions of this folder, as JSON beside this file.

    python tests/reference/make_expression_reference.py

It needs tensorflow; the tests do not.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
sys.path.insert(0, str(Path(__file__).parent))

import expressions
import numpy as np
import ragged_expressions
import raw_expressions
import sparse_expressions
import tensorflow as tf

modules = expressions, ragged_expressions, sparse_expressions, raw_expressions
groups = {name: group for module in modules for name, group in module.GROUPS.items()}
text = json.dumps(expressions.values(tf, np, groups), separators=(",", ":"))
path = Path(__file__).parent / "expressions.json"
path.write_text(text.replace('},"', '},\n"').replace('],"', '],\n"') + "\n")
