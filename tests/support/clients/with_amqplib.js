// The tutorials on amqplib.
const amqp = require("amqplib");

const EXCHANGES = {
  log: ["logs", "fanout"],
  logs: ["logs", "fanout"],
  direct: ["direct_logs", "direct"],
  topic: ["topic_logs", "topic"],
  headers: ["headers_logs", "headers"],
};
const QUEUES = {
  send: "hello",
  receive: "hello",
  new_task: "task_queue",
  worker: "task_queue",
};

async function main(script, ...args) {
  const connection = await amqp.connect(process.env.RABBITMQ_URL);
  const channel = await connection.createConfirmChannel();
  await channel.prefetch(1);
  if (script in QUEUES) {
    const queue = QUEUES[script];
    await channel.assertQueue(queue, {
      durable: true,
      arguments: { "x-queue-type": "quorum" },
    });
    if (script === "send" || script === "new_task") {
      channel.sendToQueue(queue, Buffer.from(args[0]), { persistent: true });
    } else {
      await printOne(channel, queue);
    }
  } else {
    const [exchange, type] = EXCHANGES[script.split("_").pop()];
    await channel.assertExchange(exchange, type, { durable: false });
    const table = (text) => Object.fromEntries([text.split("=")]);
    if (script.startsWith("emit")) {
      const body = Buffer.from(args.pop());
      const headers = type === "headers" ? table(args.pop()) : undefined;
      channel.publish(exchange, args.join(""), body, { headers });
    } else {
      const { queue } = await channel.assertQueue("", { exclusive: true });
      for (const key of args.length ? args : [""]) {
        const wanted = type === "headers" ? table(key) : undefined;
        await channel.bindQueue(queue, exchange, wanted ? "" : key, wanted);
      }
      await printOne(channel, queue);
    }
  }
  await channel.waitForConfirms();
  await channel.close();
  await connection.close();
}

async function printOne(channel, queue) {
  console.log("waiting");
  await new Promise((resolve) => {
    channel.consume(queue, (message) => {
      console.log(`${message.fields.routingKey}:${message.content.toString()}`);
      channel.ack(message);
      resolve();
    });
  });
}

main(...process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
