# make demo and make test each work as the first command on a fresh checkout: they install what they need.
PYTHON ?= python3
SEEDS ?= 10000
BIN := .venv/bin
JOBS ?= 3
# one that asks for a password is an error in a kernel
NO_KEYRING := PYTHON_KEYRING_BACKEND=keyring.backends.fail.Keyring
# the tests of one file stay in one process, for what they share; files in the order of the seed, so that no long one is kept for the end
SIDE_BY_SIDE = -n $(JOBS) --dist loadfile --no-loadscope-reorder

.PHONY: demo test quick lab lint js docs design e2e binder screenshots notebooks sim sim-life sim-life-sync sim-life-exports sim-life-jobs sim-export kill-export
.PHONY: least mutants crash agents
.PHONY: powercut
.PHONY: agents-netns bench bench-agents bench-export bench-views sizing clean help

help:          ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

demo: .venv/.run    ## the whole job on an embedded Kinesis, checked
	$(BIN)/kinesis-nb demo

lab: .venv/.lab    ## open JupyterLab on the tutorials
	$(BIN)/kinesis-nb lab notebooks

quick: .venv/.test    ## the tests that need no server, in under a minute
	$(BIN)/python -m pytest tests -q -m 'not slow' $(SIDE_BY_SIDE)

test: .venv/.test servers docs js    ## everything: unit, contract, notebooks, browser, documents, JavaScript
	$(BIN)/python -m pytest tests $(SIDE_BY_SIDE)
	$(BIN)/python -m pytest kinesis_nb README.md docs --doctest-modules -p no:randomly $(SIDE_BY_SIDE)
	XDG_CONFIG_HOME=.build/config $(NO_KEYRING) $(BIN)/python -m pytest --nbval --nbval-current-env --nbval-sanitize-with notebooks/sanitize.cfg -p no:randomly notebooks

e2e: .venv/.e2e    ## what a person does, in JupyterLab, Notebook 7 and Voila; pictures in .build/screenshots
	$(BIN)/python -m pytest tests/e2e -p no:randomly --ignore=tests/e2e/test_binder.py

binder: .venv/.test    ## what Binder installs, in a bare environment
	$(BIN)/python -m pytest tests/e2e/test_binder.py

screenshots: .venv/.test    ## the pictures of the README
	sh scripts/setup_chromium.sh
	PYTHONPATH=. $(BIN)/python scripts/screenshots.py

docs: .venv/.docs    ## the site, built strictly and checked: .build/site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	$(BIN)/python scripts/check_site.py

design: .venv/.run    ## the map of files and the pictures of DESIGN.md, from the code
	$(BIN)/python scripts/design.py

js: .node-js/node_modules    ## lint and test the JavaScript of the widgets
	.node-js/node_modules/.bin/biome lint
	.node-js/node_modules/.bin/vitest run --config tests/js/vitest.config.js

lint: .venv/.test .node-js/node_modules    ## format, lint, types, layers; the JavaScript too
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright -p pyproject.toml
	$(BIN)/lint-imports
	.node-js/node_modules/.bin/biome lint

notebooks: .venv/.test    ## run the tutorials and save what they print; look at it before you commit
	XDG_CONFIG_HOME=.build/config $(BIN)/python scripts/run_notebooks.py

sim: .venv/.test    ## the reader in virtual time, SEEDS=10000
	$(BIN)/python -m tests.simulation.reader --seeds $(SEEDS)

sim-life sim-life-sync sim-life-exports sim-life-jobs: SEEDS = 5000
sim-life: sim-life-sync sim-life-exports sim-life-jobs    ## machines, processes, their disk and their stream in virtual time, with exports and jobs; SEEDS=5000 of each; hours

sim-life-sync: .venv/.test    ## a sync alone in that world; about an hour
	$(BIN)/python -m tests.simulation.life --seeds $(SEEDS)

sim-life-exports: .venv/.test    ## streaming exports in that world; about an hour
	$(BIN)/python -m tests.simulation.life_exports --seeds $(SEEDS)

sim-life-jobs: .venv/.test    ## jobs of agents in that world; about two hours
	$(BIN)/python -m tests.simulation.life_jobs --seeds $(SEEDS)

least: .venv/.test    ## the reader's tests where AWS allows a reader's four actions and nothing else
	$(BIN)/python -m pytest tests/reading/test_read.py tests/reading/test_tail.py tests/syncing/test_sync.py tests/exploring/test_explore.py \
	    --allow-only ListShards,GetShardIterator,GetRecords,DescribeStream \
	    -k 'not catalog and not extras and not test_unknown_stream and not not_permitted'    # these are about more

sim-export: .venv/.test    ## 1,000 exports in virtual time
	$(BIN)/python -m tests.simulation.exports --seeds 1000

kill-export: .venv/.test    ## a streaming export that is killed 100 times
	$(BIN)/python -m tests.kill_export --kills 100

mutants: .venv/.test    ## seeded defects: the tests must kill each
	$(BIN)/python -m tests.mutants

crash: .venv/.test    ## a sync that is killed a thousand times, on a folder and on S3; about half an hour
	$(BIN)/python -m tests.crash
	$(BIN)/python -m tests.crash.outage

powercut: .venv/.test    ## a sync on a disk whose power is cut 100 times; needs root and a loop device; ten minutes
	$(BIN)/python -m tests.powercut

agents: .venv/.test    ## two agents that are drained 10 times, killed 100, frozen 50 and cut off 10; about half an hour
	$(BIN)/python -m tests.agents_kill

agents-netns: .venv/.test    ## two agents in network namespaces that are cut off 20 times; needs root
	$(BIN)/python -m tests.agents_netns

bench-agents: .venv/.test    ## one agent and two on 64 shards; the first half needs root
	$(BIN)/python benchmarks/agents.py

bench: .venv/.test    ## how fast the emulator and the engine are here
	$(BIN)/python benchmarks/emulator.py
	$(BIN)/python benchmarks/reading.py

bench-export: .venv/.test    ## exports against a boto3 loop and other libraries
	$(BIN)/python benchmarks/export.py

sizing: .venv/.test    ## what agents are to be sized by, and a plan for 10,000 shards; two minutes
	$(BIN)/python benchmarks/sizing.py

bench-views: .venv/.test    ## what live views cost in JupyterLab and Chromium
	$(BIN)/python benchmarks/tail_view.py

.PHONY: servers
servers: .venv/.test    # the Kinesis servers from npm, ministack, Helm, and a browser; each says what it could not get
	$(BIN)/python scripts/setup_node.py
	sh scripts/setup_ministack.sh
	sh scripts/setup_helm.sh
	sh scripts/setup_chromium.sh

.venv/bin/python:
	@echo 'Creating a Python environment in .venv, and updating its pip …'
	@sh scripts/setup_venv.sh $(PYTHON)

.node-js/node_modules: scripts/setup_node.py | .venv/.test
	$(BIN)/python scripts/setup_node.py js
	@touch $@

.venv/.run: .venv/bin/python pyproject.toml constraints.txt
	@echo 'Installing kinesis_nb into .venv; this takes up to a minute …'
	@$(BIN)/pip install -q -c constraints.txt -e .
	@touch $@

.venv/.lab: .venv/.run
	@echo 'Installing JupyterLab into .venv; this takes up to a minute …'
	@$(BIN)/pip install -q -c constraints.txt -e '.[notebook]'
	@touch $@

.venv/.test: .venv/.run
	@echo 'Installing what the tests need …'
	@$(BIN)/pip install -q -c constraints.txt -e '.[notebook,test]'
	@touch $@ .venv/.lab

.venv/.docs: .venv/.run
	@echo 'Installing what the site is built with …'
	@$(BIN)/pip install -q -c constraints.txt -e '.[docs]'
	@touch $@

.venv/.e2e: .venv/.test scripts/setup_e2e.sh
	@echo 'Installing Notebook 7, Voila and an older ipykernel …'
	@sh scripts/setup_chromium.sh
	@sh scripts/setup_e2e.sh
	@touch $@

clean:    ## remove what was installed
	rm -rf .venv .node .node-js .ministack .helm
