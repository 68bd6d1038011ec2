from django_mongodb_backend import base
from django_mongodb_backend.utils import OperationDebugWrapper

from .collection import Collection


class DatabaseWrapper(base.DatabaseWrapper):
    def get_database_version(self):
        # The server sends no `versionArray`; this is the version that it claims.
        return (7, 0, 0)

    def get_collection(self, name, **kwargs):
        collection = Collection(self.database, name, **kwargs)
        if self.queries_logged:
            return OperationDebugWrapper(self, collection)
        return collection
