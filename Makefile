# Everything sets itself up on first use; all that is needed is Python 3.11 and make.
# Variables: q topic doc path questions agent answer json wait area seed keep service, as in `make ask q="…" json=1`.
.DEFAULT_GOAL := help
VENV := .venv
READY := $(VENV)/ready
PYTHON := $(VENV)/bin/python
# A process for each core; each keeps to one thread, as far as a test does not set more.
TOGETHER := --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder
CLI := @$(VENV)/bin/skillmesh

# What people type reaches the commands through the environment, unexpanded by make and unseen by
# any shell: quotes, `$` and `;` in a question are just characters.
ARGUMENTS := q topic doc path questions json wait area seed keep service force names agent answer
unexport $(ARGUMENTS)
$(foreach name,$(ARGUMENTS),$(eval export SKILLMESH_ARG_$(name) := $$(value $(name))))

.PHONY: help setup certs demo test test-faults up console down status doctor nodes logs ask explain teach teach-repo correct \
	tell agents cards tasks nightly base-model protos check bench docs

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## install everything into .venv

$(READY): requirements.lock scripts/setup.sh scripts/launcher.sh
	@bash scripts/setup.sh $(VENV) requirements.lock && touch $@

certs: $(READY) ## a development authority, certificates and tokens: names="HOST ADDRESS" force=1
	@$(PYTHON) -m shared.security.certs

demo: $(READY) ## fail on ten hard questions, learn them, answer them: doc=PATH.md questions=PATH.json seed=N keep=1 json=1
	$(CLI) demo

test: check ## all tests but the long fault matrix
	@OMP_NUM_THREADS=1 $(PYTHON) -m pytest -m "not faults" $(TOGETHER)

test-faults: $(READY) ## kill every service at every stage of learning
	@$(PYTHON) -m pytest -m faults

up: $(READY) ## start the cluster on this machine
	$(CLI) up

console: $(READY) ## open its pages; starts it where it does not run: json=1
	$(CLI) console

down: $(READY) ## stop it
	$(CLI) down

status: $(READY) ## processes, health, cards, revision: json=1
	$(CLI) status

doctor: $(READY) ## what is wrong with this installation, and how to mend it: json=1
	$(CLI) doctor

nodes: $(READY) ## load, cards and revision of the inference nodes: json=1
	$(CLI) nodes

logs: $(READY) ## the end of the logs: service=NAME
	$(CLI) logs

ask: $(READY) ## ask a question: q="…" agent=NAME wait=1 json=1
	$(CLI) ask

explain: $(READY) ## why a question goes to a card, or to none: q="…" json=1
	$(CLI) explain

teach: $(READY) ## learn a topic or a document: topic="…" or doc=PATH, wait=1 json=1
	$(CLI) teach

teach-repo: $(READY) ## learn the code base of a git repository: path=PATH json=1
	$(CLI) teach-repo

correct: $(READY) ## say what is right where an answer was wrong: q="…" answer="…" wait=1 json=1
	$(CLI) correct

tell: $(READY) ## tell an agent a right answer to remember: agent=NAME q="…" answer="…" or questions=PAIRS.json, wait=1 json=1
	$(CLI) tell

agents: $(READY) ## list the agents and what they learned: json=1
	$(CLI) agents

cards: $(READY) ## list the skill cards: json=1
	$(CLI) cards

tasks: $(READY) ## list the learning tasks: json=1
	$(CLI) tasks

nightly: $(READY) ## learn now what waits for the night: json=1
	$(CLI) nightly

base-model: $(READY) ## train the embedded base model anew (over an hour; goes on where it was stopped)
	@$(PYTHON) -m shared.models.embedded.recipe.train --work .base-model \
		--output shared/models/embedded/checkpoint

protos: $(READY) ## generate shared/pb from protos/
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" bash scripts/protos.sh shared/pb

check: $(READY) ## style, types, imports, generated code
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" bash scripts/check.sh

bench: $(READY) ## measure: area=loop
	@$(PYTHON) -m benchmarks

docs: $(READY) ## the documentation as pages, in .site
	@$(PYTHON) scripts/configuration_reference.py
	@NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict --quiet
	@echo "the pages begin at .site/index.html"
