import sys
from pathlib import Path

# Tests of this folder share `random_autoencoders`, and a subprocess imports it too.
sys.path.insert(0, str(Path(__file__).parent))
