-- The four tables that a `user.create` wrote to when the project was first measured, each
-- with a row to imitate. They stay as they are, so that later figures can be compared.
CREATE TABLE `users_user` (
  `user_id` bigint(20) NOT NULL AUTO_INCREMENT,
  `nombre` varchar(100) NOT NULL,
  `apellido` varchar(100) NOT NULL,
  `email` varchar(254) NOT NULL,
  `fecha_nacimiento` datetime(6) DEFAULT NULL,
  `fecha_creacion` datetime(6) NOT NULL,
  `calificacion` double NOT NULL,
  `numero_reportes` int(10) unsigned NOT NULL CHECK (`numero_reportes` >= 0),
  `url_foto_perfil` varchar(500) NOT NULL,
  `biografia` longtext NOT NULL,
  PRIMARY KEY (`user_id`),
  UNIQUE KEY `email` (`email`),
  KEY `users_user_apellido_995ca32d` (`apellido`),
  KEY `users_user_fecha_creacion_5c314637` (`fecha_creacion`),
  KEY `users_user_calificacion_3c7dbeb7` (`calificacion`),
  KEY `users_user_numero_reportes_d427f19d` (`numero_reportes`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

INSERT INTO users_user VALUES (1, 'John', 'Doe', '3f0c5a7be812.0@example.com', '1990-01-01 00:00:00', '2026-11-26 10:37:42.510513', 5.0e0, 0, 'http://example.com/photo.jpg', 'A test user');

CREATE TABLE `users_userledger` (
  `version` int(10) unsigned NOT NULL CHECK (`version` >= 0),
  `deleted` tinyint(1) NOT NULL,
  `user_id` bigint(20) NOT NULL,
  PRIMARY KEY (`user_id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

INSERT INTO users_userledger VALUES (1, 0, 1);

CREATE TABLE `messaging_inbox` (
  `message_id` varchar(36) NOT NULL,
  `event_type` varchar(100) NOT NULL,
  `key` varchar(300) NOT NULL,
  `status` varchar(10) NOT NULL,
  `reference` varchar(255) NOT NULL,
  `kind` varchar(10) NOT NULL,
  `reason` varchar(1000) NOT NULL,
  `code` varchar(20) NOT NULL,
  `replays` int(10) unsigned NOT NULL CHECK (`replays` >= 0),
  `processed_at` datetime(6) NOT NULL,
  PRIMARY KEY (`message_id`),
  KEY `messaging_inbox_processed_at_71929fb3` (`processed_at`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

INSERT INTO messaging_inbox VALUES ('88a2d97c-c89f-5c4d-b8ac-fc7bdb756ed2', 'user.create', 'email:3f0c5a7be812.0@example.com', 'done', '1', '', '', '', 0, '2026-11-26 10:37:44.562871');

CREATE TABLE `messaging_outbox` (
  `id` bigint(20) NOT NULL AUTO_INCREMENT,
  `message_id` varchar(255) NOT NULL,
  `exchange` varchar(255) NOT NULL,
  `routing_key` varchar(255) NOT NULL,
  `type` varchar(255) NOT NULL,
  `headers` longtext CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL CHECK (json_valid(`headers`)),
  `properties` longtext CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL CHECK (json_valid(`properties`)),
  `mandatory` tinyint(1) NOT NULL,
  `body` longblob NOT NULL,
  `shard` smallint(5) unsigned NOT NULL CHECK (`shard` >= 0),
  `created_at` datetime(6) NOT NULL,
  PRIMARY KEY (`id`),
  KEY `outbox_shard` (`shard`,`id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

INSERT INTO messaging_outbox VALUES (1, '8a0dbb6b-ea8c-438c-ad11-bdc3170b70fa', 'events', 'user.created', 'user.created', '{\"partition_key\": \"user:1\"}', '{}', 0, '{\"event_type\":\"user.created\",\"user_id\":1,\"version\":1,\"nombre\":\"John\",\"apellido\":\"Doe\",\"email\":\"3f0c5a7be812.0@example.com\",\"fecha_nacimiento\":\"1990-01-01T00:00:00Z\",\"fecha_creacion\":\"2026-11-26T10:37:42.510513Z\",\"calificacion\":5.0,\"numero_reportes\":0,\"url_foto_perfil\":\"http://example.com/photo.jpg\",\"biografia\":\"A test user\"}', 2, '2026-11-26 10:37:44.562117');
