"""Which model lives in which database."""


class ReportsRouter:
    """
    Report lives in MongoDB, everything else in MySQL.

    Every answer is final, so that no table of one is ever made in the other.
    """

    def db_for_read(self, model, **hints):
        return alias_of(model._meta.app_label, model._meta.model_name)

    db_for_write = db_for_read

    def allow_migrate(self, db, app_label, model_name=None, **hints):
        return db == alias_of(app_label, model_name)


def alias_of(app_label, model_name):
    is_report = (app_label, model_name) == ("reports", "report")
    return "reports" if is_report else "default"
