"""Bad inputs and faults, one entry each: what is tried, with which files and arguments, and what must be said.

`tests/test_errors_table.py` tries them all; `docs/errors.md` is the table of what it saw.
"""

from __future__ import annotations

from tests.bad_input_files import BadInput
from tests.bad_inputs_checkpoints import CHECKPOINTS, CHECKPOINTS_WHILE_RUNNING
from tests.bad_inputs_data import DATA
from tests.bad_inputs_decoders import DECODERS
from tests.bad_inputs_encoders import ENCODERS
from tests.bad_inputs_fits import FITS
from tests.bad_inputs_numbers import NUMBERS
from tests.bad_inputs_prompts import PROMPTS, PROMPTS_WHILE_RUNNING
from tests.bad_inputs_running import WHILE_RUNNING
from tests.bad_inputs_settings import PROCESSES, SETTINGS, UNDER_TORCHRUN
from tests.bad_inputs_sharing import LOGGED_IN, NO_HUB, SHARING
from tests.bad_inputs_strangers import STRANGERS
from tests.bad_inputs_texts import TEXTS
from tests.bad_inputs_truth import TRUTH
from tests.bad_inputs_units import UNITS

BAD_INPUTS = [
    *(BadInput("Settings", *entry) for entry in SETTINGS),
    *(BadInput("Settings", *entry, environment=UNDER_TORCHRUN) for entry in PROCESSES),
    *(BadInput("Ground truth", *entry) for entry in TRUTH),
    *(BadInput("The causal bridge", *entry) for entry in UNITS),
    *(BadInput("Known before the fit", *entry) for entry in FITS),
    *(BadInput("Data", *entry) for entry in DATA),
    *(BadInput("Prompts that ask for knowledge", *entry) for entry in PROMPTS),
    *(BadInput("Prompts that ask for knowledge", *entry, running=True) for entry in PROMPTS_WHILE_RUNNING),
    *(BadInput("Texts of one's own", *entry) for entry in TEXTS),
    *(BadInput("Checkpoints", *entry) for entry in CHECKPOINTS),
    *(BadInput("Checkpoints", *entry, running=True) for entry in CHECKPOINTS_WHILE_RUNNING),
    *(BadInput("Decoders of other kinds", *entry) for entry in DECODERS),
    *(BadInput("Encoders", *entry) for entry in ENCODERS),
    *(BadInput("Types of numbers and of attention", *entry) for entry in NUMBERS),
    *(BadInput("Configurations from somebody else", *entry) for entry in STRANGERS),
    *(BadInput("Sharing, and rows of others", *entry) for entry in SHARING),
    *(BadInput("Sharing, and rows of others", *entry, environment=LOGGED_IN) for entry in NO_HUB),
    *(BadInput("Found while running", *entry, running=True) for entry in WHILE_RUNNING),
]
