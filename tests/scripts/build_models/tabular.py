"""Five small scikit-learn models as ONNX, each with its held-out rows (data/<name>_test.npz: X, y)."""

import numpy as np


def _estimators():
    """Name to (data set, estimator); every estimator is seeded."""
    from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
    from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return {
        "tab_bc_gbt": (load_breast_cancer, GradientBoostingClassifier(n_estimators=60, random_state=0)),
        "tab_bc_rf": (load_breast_cancer, RandomForestClassifier(50, random_state=0)),
        "tab_bc_scaler_logreg": (load_breast_cancer, make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))),
        "tab_digits_mlp": (load_digits, make_pipeline(StandardScaler(), MLPClassifier((64,), random_state=0, max_iter=300))),
        "tab_diabetes_gbr": (load_diabetes, GradientBoostingRegressor(n_estimators=60, random_state=0)),
    }


def split(name):
    """(train rows, held-out rows, train truth, held-out truth) of one model."""
    from sklearn.model_selection import train_test_split

    load, _ = _estimators()[name]
    data = load()
    return train_test_split(data.data.astype(np.float32), data.target, random_state=0, test_size=0.3)


def _make(name, root):
    from skl2onnx import to_onnx

    _, estimator = _estimators()[name]
    train, test, train_y, test_y = split(name)
    estimator.fit(train, train_y)
    options = {id(estimator): {"zipmap": False}} if hasattr(estimator, "predict_proba") else None
    (root / "data").mkdir(exist_ok=True)
    np.savez_compressed(root / "data" / f"{name}_test.npz", X=test, y=test_y)
    print(f"{name}: score {estimator.score(test, test_y):.4f} on {len(test)} held-out rows", flush=True)
    return to_onnx(estimator, train[:1], options=options, target_opset={"": 15, "ai.onnx.ml": 3})


NAMES = ["tab_bc_gbt", "tab_bc_rf", "tab_bc_scaler_logreg", "tab_digits_mlp", "tab_diabetes_gbr"]
MODELS = {f"{name}.onnx": (lambda root, name=name: _make(name, root)) for name in NAMES}
