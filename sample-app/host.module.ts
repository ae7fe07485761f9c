import { AppModule, HOST_DATABASE_URL } from './app.module.js';

/** What the threads of isolated jobs boot: the same module, with all that it provides. */
export const HostModule = AppModule.on(process.env[HOST_DATABASE_URL] ?? '', {
  synchronize: false,
});
