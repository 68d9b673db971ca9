// Says early that the passwords differ; the server says it too.
const first = document.getElementById('password');
const again = document.getElementById('password2');
if (first && again) {
  const compare = () => {
    again.setCustomValidity(again.value && first.value !== again.value ? 'The two passwords differ.' : '');
  };
  first.addEventListener('input', compare);
  again.addEventListener('input', compare);
}
