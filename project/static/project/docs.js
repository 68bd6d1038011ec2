// Swagger UI speaks English only, and its dark mode waits for a button: this shows its
// words in Spanish, and follows the colour scheme of the browser.
const WORDS = {
  "Accept": "Acepta:",
  "Authorization header": "Cabecera de autorización",
  "Authorize": "Autorizar",
  "Authorized": "Autorizado",
  "Available authorizations": "Autorizaciones disponibles",
  "Cancel": "Cancelar",
  "Clear": "Borrar",
  "Close": "Cerrar",
  "Code": "Código",
  "Controls": "Decide la cabecera",
  "Curl": "curl",
  "Description": "Descripción",
  "Details": "Detalles",
  "Download": "Descargar",
  "Download file": "Descargar el archivo",
  "Edit Value": "Editar",
  "Errors": "Errores",
  "Example Description": "Descripción del ejemplo",
  "Example Value": "Ejemplo",
  "Examples": "Ejemplos",
  "Examples:": "Ejemplos:",
  "Execute": "Ejecutar",
  "Failed to load API definition.": "No se pudo cargar la descripción de la API.",
  "header.": ".",
  "Headers:": "Cabeceras:",
  "Links": "Enlaces",
  "Loading...": "Cargando…",
  "Logout": "Cerrar sesión",
  "Media type": "Tipo de contenido",
  "Name": "Nombre",
  "No links": "Sin enlaces",
  "No parameters": "Sin parámetros",
  "Parameters": "Parámetros",
  "Please correct the following validation errors and try again.":
    "Corrija estos errores e inténtelo de nuevo.",
  "Request URL": "URL de la petición",
  "Request body": "Cuerpo de la petición",
  "Request duration": "Duración de la petición",
  "Required field is not provided": "Falta un campo obligatorio",
  "Reset": "Restablecer",
  "Response body": "Cuerpo de la respuesta",
  "Response headers": "Cabeceras de la respuesta",
  "Responses": "Respuestas",
  "Schema": "Esquema",
  "Schemas": "Esquemas",
  "Send empty value": "Enviar un valor vacío",
  "Server response": "Respuesta del servidor",
  "Servers": "Servidores",
  "Try it out": "Probar",
  "Type": "Tipo",
  "Undocumented": "No documentada",
  "Value": "Valor",
  "Value:": "Valor:",
  "Collapse all": "Plegar todo",
  "Expand all": "Desplegar todo",
  "Copy to clipboard": "Copiar al portapapeles",
  "Skip to operations": "Ir a las operaciones",
};
// What is in these parts comes from the API.
const DATA = ".renderedMarkdown, pre, code, textarea, script, .opblock-summary-path";

function translate(node) {
  if (node.nodeType === Node.TEXT_NODE) {
    const text = node.nodeValue.trim();
    if (text in WORDS && !node.parentElement?.closest(DATA)) {
      node.nodeValue = node.nodeValue.replace(text, WORDS[text]);
    }
    return;
  }
  for (const name of ["title", "placeholder", "aria-label"]) {
    const word = WORDS[node.getAttribute?.(name)];
    if (word) node.setAttribute(name, word);
  }
  node.childNodes.forEach(translate);
}

new MutationObserver((changes) => {
  for (const { type, target, addedNodes } of changes) {
    if (type === "characterData") translate(target);
    addedNodes.forEach(translate);
  }
}).observe(document.getElementById("swagger-ui"), {
  subtree: true, childList: true, characterData: true,
});

const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();
