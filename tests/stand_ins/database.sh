#!/bin/sh
# Start MariaDB with the database and the account that the environment names, as MySQL's image does.
set -eu

[ -d /var/lib/mysql/mysql ] || mariadb-install-db --skip-test-db
cat > /run/mysqld/accounts.sql <<END
CREATE DATABASE IF NOT EXISTS $MYSQL_DATABASE CHARACTER SET utf8mb4;
CREATE USER IF NOT EXISTS $MYSQL_USER IDENTIFIED BY '$MYSQL_PASSWORD';
GRANT ALL ON $MYSQL_DATABASE.* TO $MYSQL_USER;
END
# With a binary log, as MySQL has one.
exec mariadbd --bind-address=0.0.0.0 --log-bin --init-file=/run/mysqld/accounts.sql "$@"
