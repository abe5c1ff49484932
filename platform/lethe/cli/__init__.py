"""The commands, one module each with `main(argv: list[str] | None = None) -> int`.

A command has an entry here and a door of three lines, `platform/<name>.py`.
"""

SUMMARIES: dict[str, str] = {
    "sweep": "Search unlearning hyperparameters for a study and report the Pareto front.",
    "score": "Score models side by side: folders, hub ids, registered versions.",
    "scaling": "Measure how cost and quality of unlearning grow with the model, and predict what was not tried.",
    "doctor": "Check this machine, the cluster and the services, and say how to mend what is wrong.",
    "gc": "Show what studies hold on disk, and free it.",
    "services": "Run MLflow with logins over PostgreSQL and an S3 store on this machine, for development.",
}
