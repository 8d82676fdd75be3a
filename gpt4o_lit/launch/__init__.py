"""A launch whose processes are started from outside: by torchrun, or by SLURM's srun.

They meet at a store before any process group forms, see that they are alike, and hear from the
first of them which directory is the run's and whether they go on in it.
"""

from gpt4o_lit.launch.launch import Launch
from gpt4o_lit.launch.meeting import Meeting
from gpt4o_lit.launch.place import Place, finish, keep_place, take_folder, take_place

__all__ = ["Launch", "Meeting", "Place", "finish", "keep_place", "take_folder", "take_place"]
