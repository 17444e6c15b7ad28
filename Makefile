# Every target first makes sure of .venv. `make help` lists them.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

FOLD ?= 0
SHOT ?= 1
DATA ?= shapes
RUN  ?=

export NO_ALBUMENTATIONS_UPDATE := 1
# So that recipes read as what a person types in an activated environment.
export PATH := $(abspath $(BIN)):$(PATH)
# Some shells forbid bytecode; without it every start costs seconds.
unexport PYTHONDONTWRITEBYTECODE

GOALS := $(or $(MAKECMDGOALS),help)
ifneq ($(filter train folds,$(GOALS)),)
  ifeq ($(filter 0 1 2 3,$(FOLD)),)
    $(error FOLD=$(FOLD) is out of range: the legal range is 0..3)
  endif
  ifneq ($(words $(SHOT)),1)
    $(error SHOT=$(SHOT) is out of range: the legal range is 1, 2, 3, ...)
  endif
  ifneq ($(shell printf '%s' '$(SHOT)' | grep -Ec '^[1-9][0-9]*$$'),1)
    $(error SHOT=$(SHOT) is out of range: the legal range is 1, 2, 3, ...)
  endif
  ifeq ($(filter shapes pascal5i,$(DATA)),)
    $(error DATA=$(DATA) is unknown: choose shapes or pascal5i)
  endif
endif

OPTIONS := data.shot=$(SHOT)
OPTIONS += $(if $(ROOT),data.root=$(ROOT))
OPTIONS += $(if $(LISTS),data.lists=$(LISTS))
OPTIONS += $(if $(BACKBONE),student.backbone=$(BACKBONE))
OPTIONS += $(if $(STEPS),trainer.max_steps=$(STEPS))
OPTIONS += $(if $(SEED),data.seed=$(SEED))
OPTIONS += $(if $(DEVICES),trainer.devices=$(DEVICES))
OPTIONS += $(if $(PRECISION),trainer.precision=$(PRECISION))
OPTIONS += $(if $(NAME),run.name=$(NAME))
OPTIONS += $(ARGS)

.DEFAULT_GOAL := help
.PHONY: help setup train eval folds test lint clean

help: ## list the targets and their variables
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo 'variables: FOLD=0..3 SHOT=1.. DATA=shapes|pascal5i ROOT=folder LISTS=folder BACKBONE=folder-or-id'
	@echo '           STEPS=n SEED=n DEVICES=n PRECISION=32|bf16|16 NAME=run ARGS="key=value ..."'
	@echo 'examples:  make train FOLD=2 SHOT=5'
	@echo '           make folds DATA=pascal5i ROOT=/path/to/VOC2012 BACKBONE=facebook/dinov2-base'

setup: $(STAMP) ## create .venv with the tested versions

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

train: $(STAMP) ## train on one fold and evaluate it: FOLD, SHOT, DATA, ...
	fsdino train experiments/$(DATA).yaml data.fold=$(FOLD) $(strip $(OPTIONS))

folds: $(STAMP) ## train and evaluate all four folds, then print their table
	fsdino folds experiments/$(DATA).yaml $(strip $(OPTIONS))

eval: $(STAMP) ## evaluate a run again: RUN=runs/<name> (default: the newest)
	fsdino evaluate $(or $(RUN),"$$(ls -td runs/*/ | head -n 1)") $(ARGS)

test: $(STAMP) ## run the test suite
	python -m pytest $(ARGS)

lint: $(STAMP) ## check style and formatting
	ruff check .
	ruff format --check .

clean: ## remove the virtual environment and caches; runs/ stays
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache src/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
