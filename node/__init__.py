"""The program: a control process that meets the swarm, and a learner process that computes.

The learner (torch, no trio)
  loop.py       run_round: the whole job on one screen; read this first
  policy.py     the seam of a policy, the language-model one and a scripted one
  generate.py   the seam of generation: sampled answers, weights synchronised
    generate_vllm.py, generate_transformers.py, weight_sync.py
  batch.py      the strategies: what is wanted, and learned from; what is shared; groups.py their
                data, experience.py what is remembered, brake.py, likelihood.py
  learn.py      one policy-gradient step with TRL's GRPOTrainer; update.py what it did,
                round_report.py the figures of a round
  evaluate.py   pass@1, pass@k and diversity on held-out questions; diversity.py, interval.py
  checkpoint.py written aside, fsynced, renamed, the last n kept
  model.py      model and tokenizer: safetensors only
  build.py      the only place that chooses its parts
  learner.py    the process itself

Between them
  exchange.py   what the learner asks of the rest of the node
  pipe.py       the same through a pipe: messages and frames

The control process (trio, no torch)
  control.py    everything but the learner, opened in order and watched
  supervisor.py starts the learner, watches it, starts it again
  answerer.py   answers what the learner asks; foreign.py what is taken from peers
  tasks.py      which tasks this machine judges as all do
  history.py    reports of all rounds; threads.py blocking calls off the loop
  snapshot.py   the one view of a node, and what in it is unusual; memory.py
  api.py        REST API, metrics and page; gate.py, access.py, metrics.py, dashboard/

Both, and around them
  config.py     one settings tree: flag > environment > file > default
  home.py       the node's directory; join.py the swarm that it joined, download.py its
                file from a URL, data.py the files of rows that its tasks are made from; log.py
  status.py     one name per number; status_json.py the same as JSON
  cli.py        the console script `sapo`; cli_manifest.py its commands join and manifest;
                report.py, words.py, escape.py what it prints
  task_tools.py tasks as their authors see them; task_check.py the gate for them; task_view.py
                both in a terminal
  manifest_tools.py  swarm files as their owners make them; manifest_check.py, manifest_view.py;
                manifest_edit.py digests and signatures written into one
  exam.py       held-out questions asked of any policy; exam_view.py
  experiment/   does sharing pay? many nodes in one process, declared runs, statistics
  demo.py       a swarm on one machine; demo_home.py, demo_process.py, demo_swarm.py,
                summary.py, picture.py, view.py; live.py a board in the terminal
  make_tiny.py  trains the embedded policy in tiny/ from nothing; tiny_tokenizer.py, tiny_exam.py
"""
