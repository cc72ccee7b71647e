"""Backups, averages and lists of callbacks."""

from __future__ import annotations

import http.server
import json
import threading
import urllib.parse

import numpy as np
import pytest

import distgrad as tf
from distgrad.core.errors import DataError

from .killing import Kill, Killed

keras = tf.keras
callbacks = keras.callbacks
RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3)).astype("float32")
Y = X.sum(axis=1, keepdims=True)


def network(**options):
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dense(4, activation="relu"), keras.layers.Dropout(0.2)]
    model = keras.Sequential([keras.Input((3,)), *layers, keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.01, **options), "mse")
    return model


@pytest.mark.parametrize(("save_freq", "at"), [("epoch", 8), (2, 8), (3, 13)])
def test_a_run_that_is_cut_off_ends_with_the_same_bits(tmp_path, save_freq, at):
    def fit(folder, *more):
        model = network()
        backup = callbacks.BackupAndRestore(folder, save_freq=save_freq)
        history = model.fit(X, Y, batch_size=8, epochs=4, verbose=0, callbacks=[backup, *more])
        return model.get_weights(), history

    whole, _ = fit(tmp_path / "whole")
    with pytest.raises(Killed):
        fit(tmp_path / "cut", Kill(at))
    np.random.seed(77)  # a new process has other seeds
    tf.random.set_seed(99)
    resumed, history = fit(tmp_path / "cut")
    for ours, wanted in zip(resumed, whole, strict=True):
        np.testing.assert_array_equal(ours, wanted)
    assert history.epoch == list(range(at // 5, 4))
    assert not (tmp_path / "cut").exists()  # it came to its end


@pytest.mark.parametrize("ahead", [0, 2])
def test_a_run_that_is_cut_off_draws_what_its_dataset_would_have_drawn(tmp_path, ahead):
    def fit(folder, *more):
        model = network()
        data = tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(40)
        data = data.map(lambda x, y: (x + tf.random.normal(x.shape), y)).batch(8).prefetch(ahead)
        backup = callbacks.BackupAndRestore(folder)
        model.fit(data, epochs=3, verbose=0, callbacks=[backup, *more])
        return model.get_weights()

    whole = fit(tmp_path / "whole")
    with pytest.raises(Killed):
        fit(tmp_path / "cut", Kill(8))
    for ours, wanted in zip(fit(tmp_path / "cut"), whole, strict=True):
        np.testing.assert_array_equal(ours, wanted)


def stopper():
    early = callbacks.EarlyStopping("loss", 0.05, patience=2, restore_best_weights=True)
    return [early], lambda: (early.wait, early.best, early.best_epoch, early.stopped_epoch)


def plateau():
    reduce = callbacks.ReduceLROnPlateau("loss", 0.5, patience=2, min_delta=0.05, cooldown=1)
    return [reduce], lambda: (reduce.wait, reduce.best, reduce.cooldown_counter)


def schedule():
    return [callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.7)], lambda: None


def swap():
    return [callbacks.SwapEMAWeights(swap_on_epoch=True)], lambda: None


class Counting(callbacks.Callback):
    state_names = ("seen", "sums")

    def on_train_begin(self, logs=None):
        self.seen, self.sums = [], np.zeros(2)

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append((epoch, logs["loss"]))
        self.sums = self.sums + logs["loss"]
        if epoch == 6:
            self.model.stop_training = True


def counting():
    own = Counting()
    return [own], lambda: ([list(pair) for pair in own.seen], own.sums.tolist())


@pytest.mark.parametrize(("save_freq", "first"), [("epoch", True), ("epoch", False), (2, True)])
@pytest.mark.parametrize("at", [17, 31])
@pytest.mark.parametrize("made", [stopper, plateau, schedule, swap, counting])
def test_a_run_that_is_cut_off_goes_on_with_what_callbacks_knew(
    tmp_path, made, save_freq, at, first
):
    def fit(folder, *more):
        model = network(**({"use_ema": True} if made is swap else {}))
        backup = [callbacks.BackupAndRestore(folder, save_freq=save_freq)]
        own, known = made()
        log = tmp_path / f"{folder.name}.csv"
        own.append(callbacks.CSVLogger(log))
        each = [*backup, *own, *more] if first else [*own, *backup, *more]
        model.fit(X, Y, batch_size=8, epochs=9, verbose=0, callbacks=each)
        return [model.get_weights(), float(model.optimizer.learning_rate), known(), log.read_text()]

    whole = fit(tmp_path / "whole")
    with pytest.raises(Killed):
        fit(tmp_path / "cut", Kill(at))
    resumed = fit(tmp_path / "cut")
    for ours, wanted in zip(resumed[0], whole[0], strict=True):
        np.testing.assert_array_equal(ours, wanted)
    assert resumed[1:] == whole[1:]


def test_what_a_backup_cannot_keep_is_refused(tmp_path):
    own = Counting()
    own.on_train_begin = lambda logs: vars(own).update(seen={}, sums=0)
    own.on_epoch_end = lambda epoch, logs: None
    backup = callbacks.BackupAndRestore(tmp_path)
    with pytest.raises(TypeError, match=r"not \{\}"):
        network().fit(X, Y, epochs=1, verbose=0, callbacks=[backup, own])


def test_a_training_that_a_callback_had_ended_does_not_go_on(tmp_path):
    class Die(callbacks.Callback):
        def on_train_end(self, logs=None):
            raise Killed

    def fit(*more):
        backup = callbacks.BackupAndRestore(tmp_path)
        early = callbacks.EarlyStopping("loss", 100, restore_best_weights=True)
        model = network()
        history = model.fit(X, Y, epochs=4, verbose=0, callbacks=[backup, early, *more])
        return history.epoch, early.stopped_epoch, model.get_weights()

    with pytest.raises(Killed):
        fit(Die())
    with pytest.warns(UserWarning, match="a callback had ended the training"):
        epochs, stopped, weights = fit()
    assert (epochs, stopped) == ([], 1)
    for ours, wanted in zip(weights, fit()[2], strict=True):
        np.testing.assert_array_equal(ours, wanted)


def test_a_damaged_backup_is_named_and_the_one_before_it_is_used(tmp_path):
    model = network()
    backup = callbacks.BackupAndRestore(tmp_path, double_checkpoint=True, delete_checkpoint=False)
    model.fit(X, Y, batch_size=8, epochs=3, verbose=0, callbacks=[backup])
    _, newest = sorted(tmp_path.iterdir())
    (newest / "model.safetensors").write_bytes(b"x")
    with pytest.warns(UserWarning, match=newest.name):
        history = network().fit(X, Y, batch_size=8, epochs=3, verbose=0, callbacks=[backup])
    assert history.epoch == [2]
    for path in tmp_path.iterdir():
        (path / "manifest.json").write_text("{")
    with pytest.warns(UserWarning), pytest.raises(DataError):
        network().fit(X, Y, epochs=1, verbose=0, callbacks=[backup])


def test_backups_of_other_models_and_settings(tmp_path):
    backup = callbacks.BackupAndRestore(tmp_path, delete_checkpoint=False)
    network().fit(X, Y, epochs=1, verbose=0, callbacks=[backup])
    other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    other.compile("adam", "mse")
    with pytest.raises(ValueError, match="architecture"):
        other.fit(X, Y, epochs=1, verbose=0, callbacks=[backup])
    with pytest.raises(ValueError, match="backup_dir"):
        callbacks.BackupAndRestore("")
    with pytest.raises(ValueError, match="save_freq"):
        callbacks.BackupAndRestore(tmp_path, save_freq="batch")


def test_averages_stand_in_for_the_weights():
    """As much as Keras says: evaluated with averages, trained on without them."""
    seen = []

    class Look(callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(self.model.get_weights()[0].copy())

    model = network(use_ema=True, ema_momentum=0.5)
    plain = network()
    swap = callbacks.SwapEMAWeights(swap_on_epoch=True)
    options = {"batch_size": 8, "shuffle": False, "verbose": 0, "validation_data": (X, Y)}
    tf.random.set_seed(4)
    history = model.fit(X, Y, epochs=2, callbacks=[swap, Look()], **options)
    weights = [w.copy() for w in seen]
    seen.clear()
    tf.random.set_seed(4)
    plain.fit(X, Y, epochs=2, callbacks=[Look()], **options)
    for ours, theirs in zip(weights, seen, strict=True):
        np.testing.assert_array_equal(ours, theirs)  # it trained on the weights themselves
    average = weights[0]
    for each in weights[1:]:
        average = 0.5 * average + 0.5 * each
    np.testing.assert_allclose(model.get_weights()[0], average, rtol=1e-5)
    assert model.evaluate(X, Y, verbose=0) == pytest.approx(history.history["val_loss"][-1])
    with pytest.raises(ValueError, match="use_ema"):
        plain.fit(X, Y, callbacks=[swap], **options)


def test_a_list_tells_all(capsys):
    said = []

    class Note(callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            said.append((epoch, logs, self.params["epochs"], self.model))

    model = network()
    together = callbacks.CallbackList(
        [Note()], add_history=True, add_progbar=True, model=model, epochs=2, steps=3, verbose=2
    )
    together.on_train_begin()
    for epoch in range(2):
        together.on_epoch_begin(epoch)
        for batch in range(3):
            together.on_train_batch_begin(batch)
            together.on_train_batch_end(batch, {"loss": 1.0})
        together.on_epoch_end(epoch, {"loss": 0.5 - epoch / 4})
    together.on_train_end()
    assert said == [(0, {"loss": 0.5}, 2, model), (1, {"loss": 0.25}, 2, model)]
    assert model.history.history == {"loss": [0.5, 0.25]}
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Epoch 1/2" and "3/3" in lines[1] and "loss: 0.5000" in lines[1]


def test_a_list_gives_logs_as_fit_does():
    """None is {}, tensors are floats, sorted and flat, as in Keras; what was given stays."""
    said = []

    class Note(callbacks.Callback):
        def on_train_begin(self, logs=None):
            said.append(dict(logs))

        def on_epoch_end(self, epoch, logs=None):
            said.append((epoch, list(logs), {name: type(value) for name, value in logs.items()}))
            logs["more"] = 1.0

    together, logs = callbacks.CallbackList([Note()]), {"b": tf.constant(2.0), "a": {"c": "text"}}
    together.on_train_begin()
    together.on_epoch_end(3, logs)
    together.on_epoch_end(epoch=4, logs=logs)
    assert said == [{}, *((epoch, ["c", "b"], {"c": str, "b": float}) for epoch in (3, 4))]
    assert sorted(logs) == ["a", "b"]


def test_fit_leaves_its_line_to_a_bar(capsys):
    network().fit(X, Y, batch_size=8, epochs=2, verbose=2, callbacks=[callbacks.ProgbarLogger()])
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("Epoch")] == ["Epoch 1/2", "Epoch 2/2"]
    assert sum("5/5" in line for line in lines) == 2


class Inbox(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.got.append((self.path, self.headers["Content-Type"], body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args):
        pass


def test_logs_are_posted():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Inbox) as server:
        server.got = []
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        root = f"http://127.0.0.1:{server.server_port}"
        form, plain = (
            callbacks.RemoteMonitor(root, "/logs/", send_as_json=json) for json in (False, True)
        )
        network().fit(X, Y, epochs=1, verbose=0, callbacks=[form, plain])
        server.shutdown()
        thread.join()
    (path, _, first), (_, kind, second) = server.got
    assert path == "/logs/" and kind == "application/json"
    posted = json.loads(urllib.parse.parse_qs(first)["data"][0])
    assert posted == json.loads(second) and posted["epoch"] == 0 and posted["loss"] > 0
    with pytest.warns(UserWarning, match="Could not reach"):
        plain.on_epoch_end(0, {"loss": 1.0, "f1": np.ones(1)})
