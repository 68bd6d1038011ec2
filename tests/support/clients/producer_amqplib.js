// Declares a queue on amqplib, and sends each line of standard input to it.
const amqp = require("amqplib");
const readline = require("readline");

async function main(queue, args) {
  const connection = await amqp.connect(process.env.RABBITMQ_URL);
  const channel = await connection.createConfirmChannel();
  await channel.assertQueue(queue, { durable: true, arguments: JSON.parse(args) });
  console.log("declared");
  for await (const line of readline.createInterface({ input: process.stdin })) {
    channel.sendToQueue(queue, Buffer.from(line), { persistent: true });
    await channel.waitForConfirms();
    console.log("confirmed");
  }
  await connection.close();
}

main(...process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
