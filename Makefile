# Everything a person or a machine does with this repository. Each target makes its environment first.

BIN := .venv/bin
READY := .venv/ready
TOOLS := .venv/test-tools
PROTOS := $(wildcard proto/windlass_proto/v1/*.proto)

# The tests start hundreds of programs: each would compile all its modules again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help venv check test guest simulate models faults demo bench proto format lock clean

help:
	@echo "make demo [LOG=FILE]        a real job on three local agents, from upload to merged result"
	@echo "make test                   all tests; of the faults the quick part"
	@echo "make faults [ONLY=c01]      every fault that is tried, at length; writes docs/reliability.md"
	@echo "make guest                  what needs another kernel (NFS, cgroup v2 alone), in a virtual machine: all of it; three minutes"
	@echo "make check                  format, lint, layers, types, sizes, spec tests: under a minute"
	@echo "make models [FACTOR=20]     models and cores against each other, as many more examples as you like"
	@echo "make simulate [SEEDS=n] [FROM=k]   runs of the whole system on virtual time with seeded faults"
	@echo "make bench [FIGURES=a,b]    measure; one JSON line per figure"
	@echo "make proto                  generate the messages again from their .proto files"
	@echo "make format                 format the code"
	@echo "make lock                   choose the versions of all dependencies again (needs uv)"
	@echo "make venv                   only make the environment, .venv"
	@echo "make clean                  remove what was built and cached, but not .venv"

venv: $(READY)

$(READY): requirements/dev.lock pyproject.toml
	@requirements/environment.sh

check: $(READY)
	@echo "== format" && $(BIN)/ruff format --check --quiet --output-format concise . || { echo "run: make format"; exit 1; }
	@echo "== lint" && $(BIN)/ruff check --quiet .
	@echo "== layers" && $(BIN)/lint-imports --no-logo > .venv/layers.txt || { cat .venv/layers.txt; exit 1; }
	@echo "== types" && $(BIN)/mypy --no-error-summary
	@echo "== specs" && $(BIN)/pytest -q -n 2 tests/spec

$(TOOLS): $(READY) requirements/test_tools.sh requirements/guest.sh
	@requirements/test_tools.sh

# What only thinks runs two at a time. What starts programs mostly waits: its files run two at a time as well, the
# faults one by one beside them. At the end comes what needs the machine for itself: the guest, whose processors are
# imitated, and what is `alone`. Exit code 5 = none there.
test: $(READY) $(TOOLS)
	@status=0; \
	$(BIN)/pytest -q -n 2 --dist worksteal tests/spec tests/conformance || status=$$?; \
	$(BIN)/pytest -q -n 2 --dist loadfile tests/simulation || status=$$?; \
	$(BIN)/pytest -q -m "not alone" tests/faults > .venv/test-faults.log 2>&1 & faults=$$!; \
	$(BIN)/pytest -q -n 2 --dist loadfile -m "not alone" tests/transcripts tests/integration tests/e2e || status=$$?; \
	wait $$faults || status=$$?; \
	cat .venv/test-faults.log; \
	$(BIN)/pytest -q -m "not long" tests/guest/test_guest.py || status=$$?; \
	$(BIN)/pytest -q -m alone tests || { code=$$?; [ $$code = 5 ] || status=$$code; }; \
	exit $$status

faults: $(READY) $(TOOLS)
	@$(BIN)/pytest -v --full --write-page tests/faults $(if $(ONLY),-k $(ONLY))
	@$(if $(ONLY),,$(BIN)/pytest -v tests/guest/test_guest.py)

# A virtual machine without hardware help, whose root is this machine's, which it cannot change.
guest: $(READY) $(TOOLS)
	@$(BIN)/pytest -v tests/guest/test_guest.py

models: $(READY)
	@WINDLASS_MODEL_FACTOR=$(or $(FACTOR),20) $(BIN)/pytest -q -n 2 --dist worksteal -k "model or any_order" tests/spec

simulate: $(READY)
	@$(BIN)/python -m tests.simulation --seeds $(or $(SEEDS),1000) --from $(or $(FROM),0)

demo: $(READY)
	@$(BIN)/python examples/demo.py $(LOG)

bench: $(READY)
	@$(BIN)/python -m benchmarks $(FIGURES)

proto: $(READY)
	@$(BIN)/python -m grpc_tools.protoc -I proto --python_out=proto --pyi_out=proto --grpc_python_out=proto \
	    --mypy_grpc_out=quiet:proto --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc $(PROTOS)

format: $(READY)
	@$(BIN)/ruff check --quiet --select I --fix .
	@$(BIN)/ruff format --quiet .

lock:
	@command -v uv > /dev/null || { echo "make lock needs uv: pip install uv"; exit 1; }
	@uv pip compile pyproject.toml --extra dev --generate-hashes --python-version 3.11 --no-header --quiet \
	    --upgrade --output-file requirements/dev.lock

clean:
	@rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache benchmarks/results
	@find . -path ./.venv -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf
