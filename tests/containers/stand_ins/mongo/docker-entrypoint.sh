#!/bin/sh
# Like that of the true image, which may be given options alone.
set -e
case ${1:-} in
-* | "") set -- mongod "$@" ;;
mongod) ;;
*) exec "$@" ;;
esac
chown -R mongodb /data/db
exec setpriv --reuid mongodb --regid mongodb --init-groups "$@"
