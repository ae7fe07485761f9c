import { Injectable, Module } from '@nestjs/common';
import { InjectDataSource, InjectRepository, TypeOrmModule } from '@nestjs/typeorm';
import { IsEmail, IsInt } from 'class-validator';
import {
  BildadJob,
  BildadModule,
  JobEngineService,
  type JobExecution,
  type JobHandler,
} from 'nestjs-bildad';
import { Column, DataSource, Entity, PrimaryGeneratedColumn, Repository } from 'typeorm';

@Entity()
export class Account {
  @PrimaryGeneratedColumn() id!: number;
  @Column('text') email!: string;
  @Column('boolean', { default: false }) welcomed!: boolean;
}

@Injectable()
export class Mailer {
  async send(_to: string, _text: string): Promise<void> {
    // The production class would call a mail server.
  }
}

export class WelcomeContext {
  @IsInt() accountId!: number;
  @IsEmail() to!: string;
}

@BildadJob({ code: 'WELCOME', context: WelcomeContext, backoff: '10m' })
export class WelcomeJob implements JobHandler<WelcomeContext, string> {
  constructor(
    private readonly mailer: Mailer,
    @InjectRepository(Account) private readonly accounts: Repository<Account>,
  ) {}

  async runJob({ accountId, to }: WelcomeContext, job: JobExecution) {
    await this.mailer.send(to, 'Welcome!');
    job.progress(0.5, 'sent');
    await this.accounts.update(accountId, { welcomed: true });
    return `welcomed ${to}`;
  }
}

@Injectable()
export class AccountService {
  constructor(
    @InjectDataSource() private readonly dataSource: DataSource,
    private readonly engine: JobEngineService,
  ) {}

  signUp(email: string): Promise<Account> {
    return this.dataSource.transaction(async (manager) => {
      const account = await manager.save(manager.create(Account, { email }));
      await this.engine.enqueueJob(
        WelcomeJob,
        { accountId: account.id, to: email },
        { manager, delay: '1h' },
      );
      return account;
    });
  }
}

@Module({
  imports: [
    TypeOrmModule.forRootAsync({
      useFactory: () => ({
        type: 'postgres',
        url: process.env['APP_DATABASE_URL'],
        autoLoadEntities: true,
        synchronize: true,
      }),
    }),
    TypeOrmModule.forFeature([Account]),
    BildadModule.forRoot(),
  ],
  providers: [AccountService, Mailer, WelcomeJob],
})
export class AppModule {}
