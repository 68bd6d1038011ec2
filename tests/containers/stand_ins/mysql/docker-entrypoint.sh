#!/bin/sh
# The part of the true image's entry point that the compose files use.
set -e
chown mysql /var/lib/mysql /run/mysqld
if [ ! -d /var/lib/mysql/mysql ]; then
    mysqld --no-defaults --user=mysql --datadir=/var/lib/mysql --initialize-insecure
    password=${MYSQL_PASSWORD:-$(cat "${MYSQL_PASSWORD_FILE:-/dev/null}")}
    {
        echo "CREATE DATABASE $MYSQL_DATABASE;"
        echo "CREATE USER $MYSQL_USER IDENTIFIED BY '$password';"
        echo "GRANT ALL ON $MYSQL_DATABASE.* TO $MYSQL_USER;"
        if [ -n "${MYSQL_ROOT_PASSWORD_FILE:-}" ]; then
            echo "ALTER USER root@localhost IDENTIFIED BY '$(cat "$MYSQL_ROOT_PASSWORD_FILE")';"
        fi
    } >/tmp/init.sql
    chmod 644 /tmp/init.sql
    set -- "$@" --init-file=/tmp/init.sql
fi
exec mysqld --no-defaults --user=mysql --datadir=/var/lib/mysql \
    --bind-address=0.0.0.0 --socket=/run/mysqld/mysqld.sock --mysqlx=OFF --skip-name-resolve "$@"
