"""A real control process with a learner that is scripted (scripted_learner.py).

python run_scripted_node.py HOME BEHAVIOUR [KEY=VALUE ...]
"""

import sys
from pathlib import Path

from node.config import load_config
from node.control import run_node
from node.log import log_to

home, behaviour, *settings = sys.argv[1:]
flags: dict[str, object] = dict(one.split("=", 1) for one in settings)
flags = {"seed": 1, "api.port": 0, "swarm.listen": "/ip4/127.0.0.1/tcp/0"} | flags
flags["home"] = home
log_to(None)
learner = (sys.executable, "-P", str(Path(__file__).with_name("scripted_learner.py")), behaviour)
sys.exit(run_node(load_config(flags=flags, environment={}), learner).exit_status)
