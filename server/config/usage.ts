/** The text of `npm start -- --help`. */
export const USAGE = `
Enginehouse: one isolated, long-lived AI-agent engine for each user of each product.

  npm start             start the service; without configuration it makes its own Postgres, keys and engines
  npm run db:migrate    bring the schema of the database up to date
  npm run demo          play the whole story once, and remove everything again
  npm run bench         measure; npm run bench -- --help says what
  npm test              run the tests

  --help, -h            show this text
  --version             show the version

All settings are environment variables. The most used ones:

  ORCH_HOST, ORCH_PORT     where the service listens (127.0.0.1, 8080)
  ORCH_DATA_DIR            keys, engines and the own Postgres (.enginehouse)
  ORCH_DATABASE_URL        the Postgres to use instead (version 14 or newer)
  ORCH_ADMIN_KEY           the key of the first operator
  ORCH_ENGINE_BACKEND      docker, process or auto
  ORCH_ENGINE_IMAGE        the image of the engines
  ORCH_LOG_LEVEL           debug, info, warn, error or silent

SIGTERM, SIGINT, SIGHUP and SIGQUIT drain the service and end it.
docs/configuration.md has every setting, docs/operations.md what to do when something is wrong.
`;
