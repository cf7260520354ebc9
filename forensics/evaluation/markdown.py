"""A summary as Markdown, for people: every table says what its numbers rest on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from forensics.report import printable

Cells = Sequence[str]

_TITLES = {
    "auc": "AUC",
    "ap": "AP",
    "eer": "EER",
    "accuracy_at_half": "accuracy at 0.5",
    "balanced_accuracy_at_half": "balanced accuracy at 0.5",
    "f1_at_half": "F1 at 0.5",
    "log_loss": "log loss",
    "brier": "Brier",
    "ece": "ECE",
    "tpr_at_fpr_1": "TPR at 1% FPR",
    "tpr_at_fpr_5": "TPR at 5% FPR",
    "fpr_at_fake_threshold": "FPR at own threshold for fake",
    "fnr_at_fake_threshold": "FNR at own threshold for fake",
    "fnr_at_real_threshold": "fakes called likely real",
    "accuracy_at_fake_threshold": "accuracy at own threshold for fake",
    "balanced_accuracy_at_fake_threshold": "balanced accuracy at own threshold for fake",
    "f1_at_fake_threshold": "F1 at own threshold for fake",
    "uncertain": "uncertain",
    "accuracy_where_certain": "accuracy where not uncertain",
}
_SHORT = ("auc", "ap", "eer", "fpr_at_fake_threshold", "tpr_at_fpr_5", "log_loss", "ece")
_SECTIONS = {
    "dataset": "By data set",
    "method": "By method: its fakes against the reals of the same data set and compression",
    "compression": "By compression",
    "face_px": "By size of the face (longer side of its box)",
}


def markdown(summary: Mapping[str, Any]) -> str:
    """The whole document."""
    detector, files = summary["detector"], summary["files"]
    footnote = _footnote(summary)
    lines = [
        f"# {_text(detector['name'])} on {_text(summary['dataset'])}",
        "",
        f"{files['total']} files (split: {summary['split']}): {files['judged']} judged, "
        f"{files['abstained']} abstained from ({files['abstention_rate']:.1%}), {files['failed']} "
        f"failed. Without a probability: {files['without_probability']['real']} real, "
        f"{files['without_probability']['fake']} fake.",
        "",
        *_protocol(summary),
        "",
        "## All files",
        "",
        *_whole(summary["rows"]),
        "",
        *footnote,
    ]
    # Where every file got a probability, both treatments say the same.
    kinds = ("excluded", "imputed 0.5") if files["judged"] < files["total"] else ("excluded",)
    for by, title in _SECTIONS.items():
        for no_face in kinds:
            rows = [
                row
                for row in summary["rows"]
                if (row["by"], row["level"], row["no_face"]) == (by, "video", no_face)
            ]
            if rows:
                lines += ["", f"## {title}; without a face: {no_face}", "", *_rows(rows)]
                lines += ["", *footnote]
    if summary["robustness"]:
        lines += ["", "## Robustness", "", *_robustness(summary["robustness"]), "", *footnote]
    return "\n".join(lines) + "\n"


def _protocol(summary: Mapping[str, Any]) -> list[str]:
    protocol, statistics = summary["protocol"], summary["statistics"]
    sampling: Mapping[str, Any] = protocol.get("sampling") or {}
    frames = (
        f"{sampling['fps']} frames per second"
        if sampling.get("fps")
        else f"{sampling['frames']} frames, evenly spaced"
        if sampling
        else _text(protocol.get("predictions", "unknown"))
    )
    lines = [f"- Frames: {frames}"]
    if "aggregation" in protocol:
        lines.append(f"- Video score: {protocol['aggregation']}")
        lines.append(f"- Frame score: {protocol['frame_score']}")
        lines.append(
            f"- Crop: {protocol['crop_margin']:g} x the face, {protocol['crop_size']} px; "
            f"computed in {protocol['dtype']}"
        )
    return [
        *lines,
        f"- Files without a probability: {statistics['no_face']}",
        f"- Intervals: {statistics['interval']}; {statistics['bootstrap_draws']} draws, seed "
        f"{statistics['seed']}",
        f"- Log loss: natural logarithm, probabilities clipped to "
        f"[{statistics['log_loss_clip']:g}, 1 - {statistics['log_loss_clip']:g}] as Kaggle does; "
        f"ECE: {statistics['ece_bins']} bins of equal width",
        f"- TPR at FPR: {statistics['tpr_at_fpr']}",
        f"- Detector file sha256: `{summary['detector']['sha256']}`",
        f"- Manifest sha256: `{summary['manifest_sha256']}`",
    ]


def _footnote(summary: Mapping[str, Any]) -> list[str]:
    """Beneath each table: what no reader of a copied table may miss."""
    detector, guard = summary["detector"], summary["leak_guard"]
    line = (
        f"{_text(detector['name'])} {_text(detector['version'])}, file "
        f"{detector['sha256'][:12]}, manifest {summary['manifest_sha256'][:12]}."
    )
    if guard and guard["state"] != "clear":
        line += f" **{_text(guard['sentence'])}**"
    return [line]


def _whole(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """One column per level and treatment of the rest, one line per measure."""
    columns = [row for row in rows if row["by"] == "all"]
    if not columns:
        return ["No file got a probability."]
    header = ["", *(f"{row['level']}, {row['no_face']}" for row in columns)]
    counts = ["real + fake", *(f"{row['num_real']} + {row['num_fake']}" for row in columns)]
    missing = ["without a probability", *(str(row["num_without_probability"]) for row in columns)]
    clusters = ["clusters", *(str(row["num_clusters"]) for row in columns)]
    measures = [
        [title, *(_cell(row["measures"].get(name)) for row in columns)]
        for name, title in _TITLES.items()
        if any(name in row["measures"] for row in columns)
    ]
    return _table(header, [counts, missing, clusters, *measures])


def _rows(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    names = [name for name in _SHORT if any(name in row["measures"] for row in rows)]
    header = ["", "real + fake", "without", *(_TITLES[name] for name in names)]
    return _table(
        header,
        [
            [
                _text(row["name"]),
                f"{row['num_real']} + {row['num_fake']}",
                str(row["num_without_probability"]),
                *(_cell(row["measures"].get(name)) for name in names),
            ]
            for row in rows
        ],
    )


def _robustness(losses: Sequence[Mapping[str, Any]]) -> list[str]:
    header = ["condition", "files", "AUC", "change", "p", "lost their probability"]
    return _table(
        header,
        [
            [
                loss["condition"],
                str(loss["num_files"]),
                _cell(loss["auc"]),
                _cell(loss["auc_change"], signed=True),
                "" if loss["p_value"] is None else f"{loss['p_value']:.3f}",
                str(loss["lost_probability"]),
            ]
            for loss in losses
        ],
    )


def _cell(estimate: Mapping[str, float | None] | None, *, signed: bool = False) -> str:
    if estimate is None:
        return "-"
    spec = "+.3f" if signed else ".3f"
    text = format(estimate["value"], spec)
    if estimate["low"] is None or estimate["high"] is None:
        return text
    return f"{text} [{estimate['low']:{spec}}, {estimate['high']:{spec}}]"


def _table(header: Cells, rows: Sequence[Cells]) -> list[str]:
    def line(cells: Cells) -> str:
        return f"| {' | '.join(cells)} |"

    return [line(header), line(["---", *(["---:"] * (len(header) - 1))]), *map(line, rows)]


def _text(text: object) -> str:
    """Names from data sets: no line break, no column, no markup of their own."""
    shown = printable(str(text))
    for char in "\\`*_|<>[]":
        shown = shown.replace(char, f"\\{char}")
    return shown
