import 'reflect-metadata';
import { Injectable, Module, type DynamicModule } from '@nestjs/common';
import { InjectDataSource, InjectRepository, TypeOrmModule } from '@nestjs/typeorm';
import { IsEmail, IsInt, IsString } from 'class-validator';
import {
  BildadJob,
  BildadModule,
  JobEngineService,
  NonRetryableError,
  type BildadModuleExtras,
  type BildadModuleOptions,
  type JobExecution,
  type JobHandler,
} from 'nestjs-bildad';
import { Column, DataSource, Entity, PrimaryGeneratedColumn, Repository } from 'typeorm';

// A typical app, written without regard to tests.

@Entity()
export class Order {
  @PrimaryGeneratedColumn() id!: number;
  @Column('text') email!: string;
  @Column('text', { default: 'new' }) status!: string;
}

export class MailContext {
  @IsEmail() to!: string;
  @IsString() subject!: string;
}

export class OrderContext {
  @IsInt() orderId!: number;
}

/** The production class would send the mail. */
@Injectable()
export class Mailer {
  readonly sent: MailContext[] = [];
  failures = 0;

  send(mail: MailContext): Promise<string> {
    if (this.failures-- > 0) return Promise.reject(new Error('the mail server is down'));
    this.failures = 0;
    this.sent.push(mail);
    return Promise.resolve(`mail ${this.sent.length}`);
  }
}

@BildadJob({
  code: 'MAIL',
  context: MailContext,
  maxRetries: 2,
  backoff: '10m',
})
export class MailJob implements JobHandler<MailContext, string> {
  constructor(private readonly mailer: Mailer) {}

  async runJob(mail: MailContext, job: JobExecution) {
    if (mail.to.endsWith('@nowhere.example')) throw new NonRetryableError('no such address');
    job.progress(0.5, 'sending');
    job.log(`attempt ${job.attempt}`);
    return this.mailer.send(mail);
  }
}

@BildadJob({ code: 'SHIP', context: OrderContext, transactional: true })
export class ShipJob implements JobHandler<OrderContext> {
  constructor(private readonly engine: JobEngineService) {}

  async runJob({ orderId }: OrderContext, { manager }: JobExecution) {
    const order = await manager.findOneByOrFail(Order, { id: orderId });
    await manager.update(Order, orderId, { status: 'shipped' });
    await this.engine.enqueueJob(MailJob, {
      to: order.email,
      subject: 'shipped',
    });
    if (order.email.startsWith('broken')) throw new Error('no such street');
  }
}

/** Runs until it is aborted. */
@BildadJob({ code: 'REPORT', timeout: '30m', maxRetries: 0 })
export class ReportJob implements JobHandler<object> {
  static begun: () => void = () => undefined;

  async runJob(_context: object, { signal }: JobExecution) {
    await new Promise((_resolve, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason as Error));
      ReportJob.begun();
    });
  }
}

@Injectable()
export class OrderService {
  constructor(
    @InjectRepository(Order) private readonly orders: Repository<Order>,
    @InjectDataSource() private readonly dataSource: DataSource,
    private readonly engine: JobEngineService,
  ) {}

  /** Saves the order and enqueues its jobs in one transaction. */
  place(email: string, { fail = false } = {}): Promise<Order> {
    return this.dataSource.transaction(async (manager) => {
      const order = await manager.save(manager.create(Order, { email }));
      await this.engine.enqueueJob(MailJob, { to: email, subject: 'thank you' }, { manager });
      await this.engine.enqueueJob(
        ShipJob,
        { orderId: order.id },
        { manager, delay: '1h', priority: 3 },
      );
      if (fail) throw new Error('the card was refused');
      return order;
    });
  }

  remind(email: string) {
    return this.engine.enqueueJob(
      MailJob,
      { to: email, subject: 'do not forget' },
      { unique: { key: email } },
    );
  }

  find(id: number): Promise<Order | null> {
    return this.orders.findOneBy({ id });
  }

  count(): Promise<number> {
    return this.orders.count();
  }
}

@Module({
  imports: [TypeOrmModule.forFeature([Order])],
  providers: [OrderService, Mailer, MailJob, ShipJob, ReportJob],
})
export class OrderModule {}

@Module({})
export class AppModule {
  static on(
    url: string,
    options: BildadModuleOptions & BildadModuleExtras = {},
    pool: object = {},
  ): DynamicModule {
    return {
      module: AppModule,
      imports: [
        TypeOrmModule.forRoot({
          type: 'postgres',
          url,
          autoLoadEntities: true,
          synchronize: true,
          retryAttempts: 0,
          extra: pool,
        }),
        BildadModule.forRoot(options),
        OrderModule,
      ],
    };
  }
}
