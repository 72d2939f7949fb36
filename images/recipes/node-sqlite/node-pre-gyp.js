// Stands in for the installer package of that name, of which the sqlite3 module only asks where its
// binding is.
module.exports.find = () =>
  '/usr/lib/x86_64-linux-gnu/nodejs/sqlite3/lib/binding/napi-v6-linux-glibc-x64/node_sqlite3.node';
