import type { DataSource } from 'typeorm';
import type { Tables } from '../store/tables.js';

/** Where the verbs of a job's life find its rows. */
export interface Store {
  dataSource: DataSource;
  tables: Tables;
}
