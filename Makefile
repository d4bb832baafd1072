PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: demo docs models test test-slow lint clean

demo: .venv/installed
	$(BIN)/scorefield demo

# the models that come with the package, from SCOREFIELD_DATA; cards are written by hand
models: .venv/developed
	$(BIN)/scorefield train brain-t1-small "--data.paths=[$(SCOREFIELD_DATA)/mri/colin27_t1_1mm.nii.gz]" --out runs/brain-t1
	$(BIN)/python benchmarks/models.py runs/brain-t1 brain-t1
	$(BIN)/scorefield train digits --out runs/digits
	$(BIN)/python benchmarks/models.py runs/digits digits
	$(BIN)/scorefield train mnist --data Arrays --data.path $(SCOREFIELD_DATA)/images/mnist_70k.npz --out runs/mnist
	$(BIN)/python benchmarks/models.py runs/mnist mnist
	$(BIN)/scorefield train flow-map --init runs/mnist --train.steps 5000 --train.loss.denoising 0.5 --train.optimiser.lr 1e-3 \
		--train.loss.time.mean 0.4 --train.loss.time.std 1.8 --out runs/mnist-map
	$(BIN)/scorefield train flow-map --init runs/mnist-map --train.steps 2500 --train.loss.denoising 0.3 --train.optimiser.lr 1e-3 \
		--train.loss.time.mean 0.4 --train.loss.time.std 1.8 --out runs/mnist-few
	$(BIN)/scorefield train flow-map-scored --init runs/mnist-few --out runs/mnist-scored
	$(BIN)/scorefield train flow-map-adversarial --init runs/mnist-scored --train.precision bf16-mixed --out runs/mnist-adversarial
	$(BIN)/python benchmarks/models.py runs/mnist-adversarial mnist-few
	$(BIN)/scorefield train precip-edm --out runs/rain
	$(BIN)/python benchmarks/models.py runs/rain rain
	$(BIN)/scorefield train terrain-small --data.path $(SCOREFIELD_DATA)/functions/srtm3_volcano_tiles_dev8.npz --out runs/terrain
	$(BIN)/python benchmarks/models.py runs/terrain terrain

# the site, in build/docs: cells run once, as long as their text is the same (build/docs-cache); `make clean` forgets them
docs: .venv/documented
	$(BIN)/python -m sphinx -W --keep-going -q -b html -d build/doctrees docs build/docs

# of every change: all but what is marked slow
test: .venv/developed
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

# what is long by nature, and costly laws on all their cases
test-slow: .venv/developed
	$(BIN)/python -m pytest -n 2 --dist loadfile -m slow

lint: .venv/developed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/developed: .venv/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

.venv/documented: .venv/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

clean:
	rm -rf .venv build/docs build/docs-cache build/doctrees
