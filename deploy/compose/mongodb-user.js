// The user of compose.prod.yaml, made when the database is.
const password = require("fs").readFileSync("/run/secrets/mongodb_password", "utf8");
db.getSiblingDB("reports").createUser({
  user: "project",
  pwd: password.trim(),
  roles: [{ role: "readWrite", db: "reports" }],
});
