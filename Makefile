# Everything runs in .venv/ in this folder; nothing else needs to be installed by hand.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps

.PHONY: demo test test-fast check docs lock bench protocols weights weights-eval weights-folds clean

demo: $(STAMPS)/core  ## the main job on examples/: one table, a pancreas mask per good study, a reason for the bad one
	@rm -rf agseg-out
	@$(BIN)/agseg segment examples/studies examples/rejected --organ pancreas -o agseg-out -v; code=$$?; \
	if [ $$code -eq 3 ]; then echo "Exit code 3: some studies were not segmented, as expected. Results: agseg-out/"; else \
	echo "Exit code $$code, expected 3 (the study in examples/rejected must be refused)"; exit 1; fi

test: $(STAMPS)/dev  ## all extras, all tests
	$(BIN)/python -m pytest -n 3 --dist loadfile --durations=15

test-fast: $(STAMPS)/dev  ## what `make test` runs, without the tests marked slow: about two minutes on two cores
	$(BIN)/python -m pytest -n 4 --dist loadfile -m "not slow"

check: $(STAMPS)/dev  ## style, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

lock: $(STAMPS)/dev  ## requirements.lock anew: every version of constraints.txt with its hashes (needs uv)
	uv pip compile pyproject.toml --extra all -c constraints.txt --generate-hashes --no-emit-index-url --custom-compile-command "make lock" \
	  --python-platform x86_64-manylinux_2_28 --python-version 3.11.7 --output-file requirements.lock

docs: $(STAMPS)/dev  ## the site, strict
	$(BIN)/python docs/generate.py
	$(BIN)/mkdocs build --strict

bench: $(STAMPS)/dev  ## the command (AGAINST=checkout: beside another one), then pipelines beside the peers; over an hour
	$(BIN)/python -m benchmarks.command $(if $(AGAINST),--against $(AGAINST))
	$(BIN)/python benchmarks/run.py

protocols: $(STAMPS)/dev  ## BFT, AFT and SCR on phantoms: build/protocols/
	$(BIN)/python -m agseg.workflows.protocols

weights: $(STAMPS)/dev  ## repeat the training of the packaged weights from ../shared/data
	$(BIN)/python -m agseg.workflows.make_weights

weights-eval: $(STAMPS)/dev  ## a packaged network (NETWORK=id or file, RECIPE=name) on left-out scans: build/weights-eval/
	$(BIN)/python -m agseg.workflows.weights_eval $(NETWORK) $(if $(RECIPE),--recipe $(RECIPE))

weights-folds: $(STAMPS)/dev  ## train a packaged network (NETWORK=id) once per fold of patients and score each on its own: build/weights-folds/
	$(BIN)/python -m agseg.workflows.weights_folds $(NETWORK) $(foreach fold,$(FOLD),--fold $(fold))

clean:
	rm -rf build dist site agseg-out .pytest_cache .mypy_cache .ruff_cache

$(STAMPS)/core: pyproject.toml constraints.txt
	@echo "Installing agseg into $(VENV)/: some minutes, most of them for torch, and no word until it is done"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'  # the first that knows dependency groups
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all]' --group dev
	@# nnU-Net's own networks, for the tests only; what the package asks for beside torch (timm, torchvision) they do not use
	$(BIN)/python -m pip install --quiet --no-deps dynamic-network-architectures==0.4.4
	@mkdir -p $(STAMPS) && touch $(STAMPS)/core $@
